/* Stage mode, `?stage=1`: five slides for a talk, worked by keys or by clicks. The page beneath goes on
   as ever and is only hidden: the slides of `assets/slides.js` show what its panels say, and keys press
   its controls. */
(() => {
  if (["", "0", null].includes(new URLSearchParams(location.search).get("stage"))) return;
  const {SLIDES, FRAME, find, list, make, say, draw, readRace,
    listChosen, startRace, drawRace, drawClips, drawVerdict, drawTimes, openFaults, drawFaults} = window.slides;
  const AT_REST = ["idle", "done", "failed", "stopped"];
  const root = document.documentElement;
  root.dataset.stage = "1";
  root.dataset.slide = "1";

  const waitFor = async (check, most = 5000) => {
    const end = performance.now() + most;
    while (!check() && performance.now() < end) await new Promise((done) => setTimeout(done, 50));
    return check();
  };
  const press = (selector) => {
    for (const button of list(selector)) if (!button.disabled) button.click();
  };
  const slide = () => Number(root.dataset.slide);
  const isBusy = () => pending || find("#stop")?.disabled === false;
  const hasResult = () => {
    const states = list("#race .lane").map((lane) => lane.dataset.state);
    const ran = states.some((state) => state !== "idle");
    return !pending && ran && states.every((state) => AT_REST.includes(state));
  };

  // The clip: a sample, or what the microphone hears.

  const hasClip = () => find("#audio .play-pause-button") !== null;
  const findStop = () => list("#audio .stop-button").find((button) => button.offsetParent);
  const isRecording = () => findStop() !== undefined;
  const needsClip = () => slide() === 1 && find("#sample input[value=own]")?.checked && !hasClip();
  let micStart = 0;
  let micMoves = false;
  /* Start to record, or end it. */
  const record = async () => {
    if (micMoves) return;
    micMoves = true;
    if (isRecording()) {
      findStop().click();
      await waitFor(hasClip);
    } else {
      if (hasClip()) find("#audio button[aria-label=Clear]")?.click();
      await waitFor(() => !hasClip());
      find("#audio button[aria-label='Record audio']")?.click();
      (await waitFor(() => find("#audio .record-button")))?.click();
      await waitFor(isRecording, 15_000);
      micStart = performance.now();
    }
    micMoves = false;
  };
  const nameOwn = () => {
    // While it begins to record, `micStart` is that of the recording before.
    if (isRecording()) return `● Recording ${micMoves ? 0 : Math.floor((performance.now() - micStart) / 1000)} s`;
    return find("#sample input[value=own]").checked && hasClip() ? "Your recording" : "Microphone";
  };
  /* Choose a clip or a fault by its place. The microphone, chosen once more, records anew. */
  const choose = (group, at) => {
    const input = list(`#${group} input`)[at];
    const own = input?.value === "own";
    if (!input || (isRecording() && !own)) return;
    if (!input.checked) input.click();
    else if (own) record();
    schedule();
  };

  // The race is recorded as it is shown, and can be shown again, also after a reload.

  let frames = [];
  let kept = [];  // frames of the race that was shown before the page was loaded anew
  let started = null;
  let before = null;
  let pending = false;
  let playing = null;
  const beginRace = () => {
    [frames, started] = [[], performance.now()];
    startRace();
  };
  const note = (race) => {
    const key = JSON.stringify(race);
    if (pending && key === before) return;  // still the last race's
    pending = false;
    const runs = race.lanes.some((lane) => !AT_REST.includes(lane.state));
    if (started === null && runs) {  // since before the page was loaded anew
      beginRace();
      root.dataset.slide = "2";
    }
    if (started === null && kept.at(-1)?.key === key) frames = kept;
    if (started === null || frames.at(-1)?.key === key) return;
    frames.push({key, race, at: performance.now() - started});
    if (!runs) keep(frames);
  };
  /* Frames are much alike: packed, those of minutes take some ten kilobytes. */
  const keep = async (recorded) => {
    const packed = new Blob([JSON.stringify(recorded)]).stream().pipeThrough(new CompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(packed).arrayBuffer());
    const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    try {
      sessionStorage.setItem("race", text);
    } catch {
      sessionStorage.removeItem("race");  // no room: a replay ends with the page
    }
  };
  const recall = async () => {
    const packed = Uint8Array.from(atob(sessionStorage.getItem("race") ?? ""), (letter) => letter.charCodeAt(0));
    if (!packed.length) return;
    const frames = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    kept = await new Response(frames).json();
  };
  const stopReplay = () => {
    playing = null;
    delete root.dataset.replay;
  };
  const replay = () => {
    if (!frames.length || !hasResult()) return;
    go(2);
    const mine = playing = {};
    root.dataset.replay = "1";
    startRace();
    const waits = (race) => race.lanes.every(({state}) => ["idle", "waiting"].includes(state));
    const first = Math.max(frames.findIndex(({race}) => !waits(race)) - 1, 0);
    const start = Math.max(frames[first].at, (frames[first + 1]?.at ?? 0) - 500);  // the queue is no race
    const begun = performance.now() - start;
    const show = (at) => {
      if (playing !== mine) return;
      drawRace(frames[at].race);
      if (at + 1 === frames.length) playing = null;  // its label stays as long as the slide does
      else setTimeout(show, begun + frames[at + 1].at - performance.now(), at + 1);
    };
    show(first);
  };
  const compare = () => {
    if (isBusy() || find("#compare")?.disabled !== false) return;
    stopReplay();
    beginRace();
    [before, pending] = [JSON.stringify(readRace()), true];
    const blank = {state: "waiting", rank: 0, share: 0, unsure: false, seconds: "", doing: "", words: []};
    const race = {said: "About to start …", alert: false, left: "", lanes: listChosen().map((lane) => ({...lane, ...blank}))};
    frames.push({key: "", race, at: 0});
    drawRace(race);
    root.dataset.slide = "2";
    press("#compare");
  };

  // Slides.

  const DRAW = {
    1: () => drawClips(nameOwn, choose),
    2: () => { if (!playing && !pending) drawRace(readRace()); },
    3: drawVerdict,
    4: () => { drawTimes(); openFaults(); },  // for the next slide
    5: () => drawFaults(choose),
  };
  const last = () => {
    if (hasResult()) return SLIDES.length;
    return isBusy() ? 2 : 1;
  };
  const go = (to) => {
    if (to < 1 || (to > last() && to > slide())) return;
    stopReplay();
    root.dataset.slide = String(to);
    schedule();
  };
  const run = () => {
    if (isRecording() || needsClip()) record();
    else if (slide() === 5) press("#fault");
    else compare();
  };
  const stop = () => {
    if (isRecording()) record();
    else if (playing) stopReplay();
    else press("#stop, #inspect-stop, #fault-stop");
  };
  const step = (by) => {
    const group = {1: "sample", 5: "faults"}[slide()];
    const at = list(`#${group} input`).findIndex((input) => input.checked) + by;
    if (group && at >= 0) choose(group, at);
  };
  /* Before there is a result the arrows choose a clip; then they turn the slides. */
  const turn = (by) => {
    if (slide() === 1 && last() === 1) step(by);
    else go(slide() + by);
  };
  const showSettings = (open) => {
    root.toggleAttribute("data-settings", open);
    if (!open) document.activeElement?.blur();
    if (open && !find("#repeats")?.offsetParent) find(".advanced .label-wrap")?.click();
    if (open) find("#engines input")?.focus();
  };

  // Keys, and the line that names them.

  const KEYS = {
    " ": run,
    escape: stop,
    arrowright: () => turn(1),
    arrowleft: () => turn(-1),
    pagedown: () => go(slide() + 1),
    pageup: () => go(slide() - 1),
    arrowdown: () => step(1),
    arrowup: () => step(-1),
    s: () => showSettings(true),
    r: replay,
    p: () => press("#audio .play-pause-button"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (root.hasAttribute("data-settings")) {
      const types = event.target.matches("input:not([type=radio], [type=checkbox]), textarea");
      if (key === "escape" ? find("[role=combobox][aria-expanded=true]") : key !== "s" || types) return;
      showSettings(false);
    } else if (/^[1-9]$/.test(key)) {
      const group = {1: "sample", 5: "faults"}[slide()];
      if (group) choose(group, Number(key) - 1);
    } else if (key in KEYS) KEYS[key]();
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
    schedule();
  }, true);
  const listKeys = () => {
    if (root.hasAttribute("data-settings")) return [["S", "s", "close"]];
    if (isRecording()) return [["Space", " ", "end the recording"]];
    const [at, end] = [slide(), last()];
    const keys = [];
    if (isBusy() || find("#fault-stop")?.disabled === false) keys.push(["Esc", "escape", "stop"]);
    else keys.push(["Space", " ", needsClip() ? "record" : at === 1 || at === 5 ? "run" : "run again"]);
    if (at === 1 || at === 5) keys.push([end > 1 ? "↑ ↓" : "← →", null, "choose"]);
    if (at === 1) keys.push(["P", "p", "listen"], ["S", "s", "settings"]);
    else if (at < 5 && frames.length && hasResult()) keys.push(["R", "r", "replay"]);
    if (at > 1) keys.push(["←", "pageup", SLIDES[at - 2]]);
    if (at < end) keys.push(["→", "pagedown", SLIDES[at]]);
    return keys;
  };
  const drawFooter = () => {
    const keys = listKeys();
    draw(".keys", keys, () => keys.map(([shown, key, text]) => {
      const item = make(key ? "button" : "span", "", make("kbd", "", shown), ` ${text}`);
      if (!key) return item;
      item.type = "button";
      item.addEventListener("click", () => {
        item.blur();
        if (root.hasAttribute("data-settings")) showSettings(false);
        else KEYS[key]();
        schedule();
      });
      return item;
    }));
    say(find("#stage .where"), `${slide()} of ${SLIDES.length}`);
  };

  let scheduled = false;
  const schedule = () => {
    if (scheduled) return;
    scheduled = true;
    setTimeout(() => {
      scheduled = false;
      if (!find("#stage") || !find("#race .lane")) return;
      note(readRace());
      DRAW[slide()]();
      drawFooter();
    }, 16);
  };
  const begin = () => {
    recall().catch(() => sessionStorage.removeItem("race"));
    document.body.insertAdjacentHTML("beforeend", FRAME);
    new MutationObserver(schedule).observe(find("gradio-app"), {
      subtree: true, childList: true, characterData: true,
      attributeFilter: ["class", "style", "disabled", "data-state"],
    });
    setInterval(schedule, 300);  // what a control holds changes without a mutation
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
