/* What only the browser can do: a name for this tab, saving and copying, what a term means, which part
   of the page is shown, and which clip is in the player. */
(() => {
  const root = document.documentElement;

  /* A tab keeps its name over a reload, so that the page can ask for what was finished. */
  window.nameVisit = () => {
    let name = sessionStorage.getItem("visit");
    if (!name) {
      name = [...crypto.getRandomValues(new Uint8Array(16))]
        .map((byte) => byte.toString(16).padStart(2, "0")).join("");
      sessionStorage.setItem("visit", name);
    }
    return name;
  };
  /* Save a file, or copy its text, and return what to say: `note` where there is no file. */
  window.saveFile = (file, note) => {
    if (!file) return note;
    const {name, type, text, base64} = JSON.parse(file);
    const content = base64 ? Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0)) : text;
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(new Blob([content], {type}));
    anchor.download = name;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
    return `Saved as ${name}.`;
  };
  /* Without https a browser has no clipboard for scripts; the old command does. */
  window.copyWords = async (file, note) => {
    if (!file) return note;
    const {text} = JSON.parse(file);
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = Object.assign(document.createElement("textarea"), {value: text});
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      if (!done) return "This browser does not let the page copy: save the text instead.";
    }
    return "The transcript is on the clipboard.";
  };
  /* The list of runs: its buttons, and the ticks, which stay with their runs as rows come and go. */
  const ticks = new Set();
  window.tickedRuns = () => [...ticks];
  window.connectRuns = (element, trigger, watch) => {
    const settle = () => {
      const boxes = [...element.querySelectorAll("input")];
      for (const run of ticks) if (!boxes.some((box) => box.value === run)) ticks.delete(run);
      for (const box of boxes) box.checked = ticks.has(box.value);
      for (const time of element.querySelectorAll("time")) {  // the server's clock may be elsewhere
        time.textContent = new Date(time.dateTime)
          .toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
      }
    };
    element.addEventListener("change", ({target}) => {
      if (target.checked) ticks.add(target.value);
      else ticks.delete(target.value);
    });
    element.addEventListener("click", (event) => {
      const {action, run} = event.target.closest("button")?.dataset ?? {};
      if (!action) return;
      trigger("click", {action, run});
      if (action !== "open") return;
      editing = false;
      document.querySelector("#summary").scrollIntoView({behavior: "smooth"});
    });
    watch("value", settle);
    settle();
  };
  /* Many clips: a row's button, and a dot of the chart, open a clip as a comparison. */
  window.connectClips = (element, trigger) => {
    const open = (clip) => trigger("click", {clip});
    element.addEventListener("click", ({target}) => {
      const {clip} = target.closest("[data-clip]")?.dataset ?? {};
      if (clip !== undefined) open(clip);
    });
    element.addEventListener("pick", ({detail}) => open(detail));
  };
  window.openClip = (note) => {
    if (note) return;
    editing = false;
    document.querySelector("#compare").click();
    document.querySelector("#summary").scrollIntoView({behavior: "smooth"});
  };
  /* The address bar is where a link belongs; the clipboard is a courtesy that a browser may refuse.
     `stage` and other words in the address stay. */
  window.showLink = (query, names) => {
    const address = new URL(location.href);
    for (const name of names) address.searchParams.delete(name);
    for (const [name, value] of new URLSearchParams(query)) address.searchParams.set(name, value);
    history.replaceState(history.state, "", address);
    if (navigator.clipboard) navigator.clipboard.writeText(address.href).catch(() => {});
  };
  window.wasReloaded = () => performance.getEntriesByType("navigation")[0]?.type !== "navigate";

  /* The player's speed button is named by what a press does; its name has to hold what it shows. */
  const nameSpeed = () => {
    for (const button of document.querySelectorAll("#audio button.playback")) {
      const [shown, label] = [button.textContent.trim(), button.getAttribute("aria-label")];
      if (!label.startsWith(shown)) {
        button.setAttribute("aria-label", `${shown}: ${label.replace(/^[^:]*: /, "")}`);
      }
    }
  };
  /* The box for many clips is named by what it shows; a label that says something else is a fault. */
  const nameBox = () => document.querySelector("#clip-files .upload-container[aria-label]:not(.icon-mode)")
    ?.removeAttribute("aria-label");
  /* Gradio names each radio button apart; one name for all of a choice makes the arrow keys work. */
  const nameChoices = () => {
    for (const choice of document.querySelectorAll(".pills[id], .cards[id]")) {
      for (const radio of choice.querySelectorAll("input[type=radio]")) {
        if (radio.name !== `choice-${choice.id}`) radio.name = `choice-${choice.id}`;
      }
    }
  };
  /* What a term means, beside it: on hover, on focus (of a row that holds it as well), on touch. */
  const tip = Object.assign(document.createElement("div"), {id: "tip", role: "tooltip", hidden: true});
  const explain = (target) => {
    const term = target?.closest?.("[data-tip]");
    tip.hidden = !term;
    if (!term) return;
    if (!tip.isConnected) document.querySelector(".gradio-container").append(tip);
    term.setAttribute("aria-describedby", "tip");
    tip.textContent = term.dataset.tip;
    const [place, room] = [term.getBoundingClientRect(), tip.getBoundingClientRect()];
    const above = place.bottom + room.height + 8 > innerHeight;
    tip.style.top = `${above ? place.top - room.height - 4 : place.bottom + 4}px`;
    tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - room.width - 8))}px`;
  };
  document.addEventListener("pointerover", ({target}) => explain(target));
  document.addEventListener("focusin", ({target}) =>
    explain(target.matches("summary") ? target.querySelector("[data-tip]") : target));
  document.addEventListener("focusout", () => explain(null));
  document.addEventListener("scroll", () => explain(null), true);
  document.addEventListener("keydown", ({key}) => { if (key === "Escape") explain(null); }, true);

  /* The page is shown when all of the first screen is there, and a link's settings with it, or when
     that takes too long: who presses Compare at once runs what the link says. */
  let linked = [...new URLSearchParams(location.search).keys()].some((name) => !name.startsWith("__"));
  const FIRST = ["#sample label", "#model input", "#language input", "#engines label", "#compare",
    "#audio :is(.waveform-container, .upload-container)", ".credits"];
  const noteReady = (late) => {
    if (root.dataset.ready) return;
    const isThere = !linked && FIRST.every((each) => document.querySelector(each));
    if (late || isThere) root.dataset.ready = "1";
  };
  window.noteLoaded = () => {
    linked = false;
    noteReady(false);
  };
  setTimeout(noteReady, 8000, true);

  /* What is shown: the setup, or the result with the setup folded. A job that is refused before
     anything ran leaves the setup open; on stage (`assets/stage.js`) it stays hidden. */
  let editing = false;
  let asked = false;
  let wantsTabs = sessionStorage.getItem("tabs") === "1"; // outlives a reload
  const chooseView = () => {
    const ran = document.querySelector('#lanes [data-state]:not([data-state="idle"])') !== null;
    if (asked && !ran && document.querySelector("#summary [role=alert]")) asked = false;
    const view = !editing && !root.dataset.stage && (ran || asked) ? "result" : "setup";
    if (root.dataset.view !== view) root.dataset.view = view;
    for (const [name, on] of [["data-ran", ran || asked], ["data-tabs", ran || asked || wantsTabs]]) {
      if (root.hasAttribute(name) !== on) root.toggleAttribute(name, on);
    }
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("#compare, #again, #edit, #show-tabs, #show-clips");
    if (!button) return;
    if (button.id.startsWith("show-")) {
      wantsTabs = true;
      sessionStorage.setItem("tabs", "1");
      chooseView();
      if (button.id === "show-clips") {
        [...document.querySelectorAll("#tabs [role=tab]")]
          .find((tab) => tab.textContent.trim() === "Many clips")?.click();
      }
      document.querySelector("#tabs").scrollIntoView();
      return;
    }
    editing = button.id === "edit";
    asked = button.id !== "edit";
    if (button.id === "again") document.querySelector("#compare").click();
    chooseView();
    if (editing) scrollTo({top: 0});
  }, true);

  /* What presses a button that isn't seen; a box only when it is ticked. */
  document.addEventListener("click", ({target}) => {
    const {press} = target.closest?.("[data-press]")?.dataset ?? {};
    if (press && target.checked !== false) document.querySelector(`#${press}`).click();
  });

  new MutationObserver(() => { noteReady(false); nameSpeed(); nameBox(); nameChoices(); chooseView(); }).observe(document, {
    subtree: true, childList: true, characterData: true, attributeFilter: ["aria-label", "name"],
  });

  /* Words play only while the clip that they are of is in the player. The lanes name theirs as
     `ComparisonRequest.find_clip` does: a sample by its key, a clip of one's own by its folder and file. */
  let inPlayer;
  window.noteClip = (file) => { inPlayer = file?.path ?? null; };
  window.nameClip = () => {
    const chosen = document.querySelector("#sample input:checked")?.value;
    if (inPlayer === undefined) return chosen;
    const [folder, file] = (inPlayer ?? "").split("/").slice(-2);
    if (chosen === "own") return `${folder}/${file}`;
    return file === `${chosen}.flac` ? chosen : null;
  };
  /* A recording is shown before the server has it; some ten seconds are enough for any. */
  window.clipArrives = async () => {
    const isOnItsWay = () =>
      inPlayer === null && document.querySelector("#audio .play-pause-button");
    const most = performance.now() + 10_000;
    while (isOnItsWay() && performance.now() < most) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
})();
