/* The words of the transcripts: played by a click or a key, marked while they are heard, walked
   through from difference to difference, copied. What is drawn anew by the server keeps the rows
   that a visitor opened, the word that has the focus, and the place that was scrolled to. */
(() => {
  const WORDS = "#lanes .segment [data-t]";

  /* Words play only while the clip that they are of is in the player. */
  const hasTheirClip = () => {
    const lanes = document.querySelector("#lanes .lanes");
    return Boolean(lanes?.dataset.clip) && lanes.dataset.clip === nameClip();
  };

  /* The player's media element is not in the document: it shows itself when it plays. */
  let player = null;
  let wanted = null;
  const play = HTMLMediaElement.prototype.play;
  HTMLMediaElement.prototype.play = function () {
    player = this;
    if (wanted !== null) this.currentTime = wanted;
    wanted = null;
    requestAnimationFrame(follow);
    return play.call(this);
  };
  /* Play the clip of the result from a time in seconds; nothing happens if another clip is there. */
  window.playFrom = (seconds) => {
    if (!hasTheirClip()) return;
    if (player && !player.paused) {
      player.currentTime = seconds;
      return;
    }
    wanted = seconds;
    document.querySelector("#audio .play-pause-button")?.click();
  };

  /* While the clip plays, the word of this moment is marked in every column, and the cursor of the
     spectrogram (`assets/charts.js`) moves. */
  const follow = () => {
    const stopped = !player || player.paused || player.ended || !hasTheirClip();
    markWords(stopped ? null : player.currentTime);
    window.moveCursor?.(player && hasTheirClip() ? player.currentTime : null);
    if (player && !player.paused && !player.ended) requestAnimationFrame(follow);
  };

  const findWords = (time) => {
    const found = new Map();
    if (time === null) return found;
    for (const line of document.querySelectorAll("#lanes .segment")) {
      const words = line.querySelectorAll("[data-t]");
      if (!words.length || Number(words[0].dataset.t) > time) continue;
      if (time >= Number(line.dataset.end)) continue;
      for (const word of words) {
        if (Number(word.dataset.t) <= time) found.set(line.parentElement.dataset.engine, word);
      }
    }
    return found;
  };
  const markWords = (time) => {
    const words = new Set(findWords(time).values());
    for (const old of document.querySelectorAll("#lanes .now")) {
      if (!words.has(old)) old.classList.remove("now");
    }
    let moved = false;
    for (const word of words) {
      moved ||= !word.classList.contains("now");
      word.classList.add("now");
    }
    const [first] = [...words].filter((word) => word.offsetParent);
    if (moved && first) bringIntoView(first);
  };
  /* Scroll inside the box only: the page stays where its visitor put it. */
  const bringIntoView = (word) => {
    const box = word.closest(".transcript");
    const [inner, outer] = [word.getBoundingClientRect(), box.getBoundingClientRect()];
    if (inner.top < outer.top + 48 || inner.bottom > outer.bottom - 8) {
      box.scrollTop += inner.top - outer.top - box.clientHeight / 3;
    }
  };

  /* A word dragged over is being copied, not asked for. */
  const isSelecting = (word) => {
    const selection = getSelection();
    return !selection.isCollapsed && word.closest(".lanes")?.contains(selection.anchorNode);
  };
  document.addEventListener("click", (event) => {
    const target = event.target.closest?.(
      "#lanes :is([data-step], [data-copy], [data-why]), [data-t]");
    if (target?.dataset.why) askWhy(target.dataset.why);
    else if (target?.dataset.step) walk(Number(target.dataset.step));
    else if (target?.dataset.copy) copy(target);
    else if (target && !isSelecting(target)) playFrom(Number(target.dataset.t));
  });

  /* Ask in its tab why an engine differs from the baseline; the tab is filled when it is opened. */
  const askWhy = async (key) => {
    const tabs = [...document.querySelectorAll("#tabs [role=tab]")];
    tabs.find((tab) => tab.textContent.trim() === "Why they differ")?.click();
    const find = () => document.querySelector(`#why-engine input[value="${key}"]`);
    for (let left = 100; left && !find(); left -= 1) await pause(50);
    find()?.click();
    await pause(100);  // until the choice is known
    document.querySelector("#tabs").scrollIntoView({behavior: "smooth"});
    document.querySelector("#why")?.click();
  };
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  const copy = async (button) => {
    const lines = document.querySelectorAll(`#lanes [data-engine="${button.dataset.copy}"] .segment`);
    const text = [...lines].map((line) => {
      const plain = line.cloneNode(true);
      for (const gone of plain.querySelectorAll("del")) gone.remove();
      return plain.textContent.trim().replace(/\s+/g, " ");
    });
    const told = await copyWords(JSON.stringify({text: text.join(" ")}), "");
    button.title = told;
    button.textContent = told.startsWith("The") ? "Copied ✓" : "Not copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };

  /* From difference to difference; words that stand together are one. */
  let sought = 0;
  const listDifferences = () =>
    [...document.querySelectorAll("#lanes .segment :is(ins, del)")].filter((word) =>
      word.offsetParent && !word.previousElementSibling?.matches("ins, del"));
  const walk = (step) => {
    const places = listDifferences();
    if (!places.length) return;
    const at = places.findIndex((word) => word.classList.contains("sought"));
    sought = at < 0 ? (step > 0 ? 0 : places.length - 1) : (at + step + places.length) % places.length;
    places[at]?.classList.remove("sought");
    places[sought].classList.add("sought");
    bringIntoView(places[sought]);
    document.querySelector("#lanes .count").textContent = `${sought + 1} of ${places.length}`;
    if (document.activeElement.closest?.("#lanes .segment")) focusWord(places[sought]);
  };

  /* One word of a column takes the focus from Tab; arrow keys go on from there. */
  const focusWord = (word) => {
    const column = word.closest("[data-engine]").dataset.engine;
    for (const old of document.querySelectorAll(`#lanes [data-engine="${column}"] [tabindex]`)) {
      if (old !== word && old.matches(".segment *")) old.removeAttribute("tabindex");
    }
    word.tabIndex = 0;
    if (word.dataset.t) word.role = "button";
    word.focus({preventScroll: true});
    bringIntoView(word);
  };
  const STEPS = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1};
  const moveFocus = (word, key) => {
    const column = word.closest("[data-engine]").dataset.engine;
    const cells = [...document.querySelectorAll(`#lanes .cell[data-engine="${column}"]`)]
      .map((cell) => [...cell.querySelectorAll(".segment [data-t]")])
      .filter((words) => words.length && words[0].offsetParent);
    const words = cells.flat();
    const row = cells.findIndex((each) => each.includes(word));
    const step = STEPS[key] ?? 0;
    const forth = getComputedStyle(word).direction === "rtl" ? -step : step;
    const next = {
      Home: words[0],
      End: words.at(-1),
      ArrowUp: cells[row + step]?.[0],
      ArrowDown: cells[row + step]?.[0],
    }[key] ?? (key.endsWith("t") ? words[words.indexOf(word) + forth] : null);
    if (next) focusWord(next);
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select");
    const shown = document.querySelector("#lanes .lanes")?.offsetParent;
    if (!typing && shown && ["n", "p"].includes(event.key)) walk(event.key === "n" ? 1 : -1);
    const word = event.target.closest?.(WORDS);
    if (!word) return;
    if (event.key === "Enter" || event.key === " ") playFrom(Number(word.dataset.t));
    else if (event.key in STEPS || event.key === "Home" || event.key === "End") moveFocus(word, event.key);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);

  /* The server's HTML knows nothing of what was opened and focused: put it back before it shows. */
  const opened = new Map();
  document.addEventListener("click", (event) => {
    const details = event.target.closest?.("#race summary")?.parentElement;
    if (details) opened.set(details.dataset.row, !details.open);
  });
  /* Their place is made with the click, so that nothing moves when the server answers. */
  const PANELS = "#race, #lanes";
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#compare, #again")) return;
    for (const panel of document.querySelectorAll(PANELS)) panel.classList.add("asked");
  });
  let atEnd = true; // of the words while they come; those of a finished run are read from the top
  let running = false;
  document.addEventListener("scroll", (event) => {
    const box = event.target;
    if (!box.matches?.("#lanes .transcript")) return;
    atEnd = box.scrollTop + box.clientHeight > box.scrollHeight - 24;
  }, true);
  /* Rows glide to their ranks: nothing jumps from under the pointer. */
  const places = new Map();
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const glide = () => {
    for (const row of document.querySelectorAll("#race .lane")) {
      const [order, top, last] = [row.style.order, row.offsetTop, places.get(row.dataset.engine)];
      places.set(row.dataset.engine, {order, top});
      if (!last || last.order === order || last.top === top || calm.matches) continue;
      const from = {transform: `translateY(${last.top - top}px)`};
      row.animate([from, {transform: "none"}], {duration: 500, easing: "ease-in-out"});
    }
  };
  const restore = () => {
    glide();
    if (document.querySelector("#summary [role=alert]")) {
      for (const panel of document.querySelectorAll(PANELS)) panel.classList.remove("asked");
    }
    for (const details of document.querySelectorAll("#race details")) {
      const open = opened.get(details.dataset.row);
      if (open !== undefined && details.open !== open) details.open = open;
    }
    const box = document.querySelector("#lanes .lanes--running .transcript");
    if (!box && running && atEnd) document.querySelector("#lanes .transcript")?.scrollTo(0, 0);
    running = Boolean(box);
    if (!box) atEnd = true;
    else if (atEnd) box.scrollTop = box.scrollHeight;
    for (const head of document.querySelectorAll("#lanes .heads [data-engine]")) {
      const words = `#lanes .cell[data-engine="${head.dataset.engine}"] .segment`;
      if (document.querySelector(`${words} [tabindex]`)) continue;
      const first = document.querySelector(`${words} [data-t]`);
      if (!first) continue;
      first.tabIndex = 0;
      first.role = "button";
    }
  };
  new MutationObserver(restore).observe(document, {
    subtree: true, childList: true, characterData: true, attributeFilter: ["open", "tabindex"],
  });
})();
