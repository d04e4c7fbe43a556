/* The slides of stage mode, drawn from what the page's panels say. `assets/stage.js` works them. */
(() => {
  const SLIDES = ["choose", "race", "verdict", "where the time went", "break it"];
  const FRAME = `<main id="stage" aria-label="Stage">
    <section data-n="1"><h1>Which clip?</h1><div class="tiles" role="radiogroup" aria-label="Clip"></div>
      <p class="asked"></p></section>
    <section data-n="2"><h1><span class="title" role="status"></span><span class="mark">Replay</span>
      <span class="left"></span></h1><ol class="racers"></ol></section>
    <section data-n="3"><h1>The verdict</h1><div class="poster"></div></section>
    <section data-n="4"><h1>Where the time went</h1><ol class="stacks"></ol><p class="aside"></p></section>
    <section data-n="5"><h1>Break it</h1><div class="halves"><div class="faults" role="radiogroup"
      aria-label="Fault"></div><div class="outcome"></div></div></section>
    <footer><p class="keys"></p><p class="where"></p></footer></main>`;
  /* Stages as the rows of the race name them, and how much of the engine's colour each has. */
  const STAGES = {"Read audio": 20, "Set-up": 35, "Log-mel": 50, "Encoder": 72, "Decoder loop": 100};

  const LEAST_SHARE = 0.01;  // of an engine's time: less can't be seen, and isn't named

  const find = (selector, scope = document) => scope.querySelector(selector);
  const list = (selector, scope = document) => [...scope.querySelectorAll(selector)];
  const clean = (text) => text.trim().replace(/\s+/g, " ");
  const read = (selector, scope) => clean(find(selector, scope)?.textContent ?? "");
  const make = (tag, name, ...inside) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...inside);
    return element;
  };
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  /* Draw anew only what changed, so that nothing flickers. */
  const drawn = new Map();
  const draw = (selector, data, build) => {
    const [key, place] = [JSON.stringify(data), find(`#stage ${selector}`)];
    if (drawn.get(selector) === key) return;
    drawn.set(selector, key);
    place.replaceChildren(...build());
    for (const box of list(".fits", place)) {  // fades out where there is more than fits
      box.classList.toggle("cut", box.scrollHeight > box.clientHeight + 2);
    }
  };
  const nameOption = (input) => clean(input.closest("label").textContent);

  // What the page says.

  const readWords = (key) => {
    const words = [];
    const add = (text, mark) => {
      if (words.at(-1)?.[1] === mark) words.at(-1)[0] += text;
      else words.push([text, mark]);
    };
    for (const line of list(`#lanes .cell[data-engine="${key}"] :is(.segment, .partial)`)) {
      if (words.length) add(" ", "");
      if (line.matches(".partial")) add(clean(line.textContent), "partial");
      else for (const node of line.childNodes) add(node.textContent, node.matches?.("ins, del") ? node.localName : "");
    }
    return words;
  };
  const readLane = (lane) => ({
    key: lane.dataset.engine,
    state: lane.dataset.state,
    tone: lane.style.getPropertyValue("--engine"),
    name: read(".name", lane),
    rank: Number.parseInt(read(".rank", lane), 10) || 0,
    share: Number.parseFloat(find(".bar > span", lane)?.style.width) || 0,
    unsure: find(".bar.unsure", lane) !== null,
    seconds: read(".seconds", lane),
    doing: read(".reason", lane) || [read(".state", lane), read(".speed", lane)].filter(Boolean).join(" · "),
    words: readWords(lane.dataset.engine),
  });
  const readRace = () => ({
    said: read("#summary .summary"),
    alert: find("#summary .alert") !== null,
    left: read("#summary .left"),
    lanes: list("#race .lane").map(readLane),
  });
  /* Whether every engine's time is that of one run: there is a dot for each. */
  const isSingle = () => list("#race .lane").every((lane) => list(".bar > i", lane).length < 2);

  /* The engines that are to run; their colours stand in the page's head. */
  const listChosen = () => list("#engines input:checked").map((input) => ({
    key: input.value,
    name: input.closest("label").textContent.trim().split("\n")[0],
    tone: `var(--engine-${input.value})`,
  }));

  // 1: choose. The options of one of the page's choices become large buttons.

  const drawChoices = (place, group, name, choose) => {
    const inputs = list(`#${group} input`);
    const options = inputs.map((input) => [name(input), input.checked]);
    draw(place, options, () => options.map(([label, checked], at) => {
      const tile = make("button", "tile", make("kbd", "", String(at + 1)), make("span", "", label));
      tile.type = "button";
      tile.role = "radio";
      tile.ariaChecked = String(checked);
      tile.addEventListener("click", () => { tile.blur(); choose(group, at); });
      return tile;
    }));
    find(`#stage ${place}`).style.setProperty("--columns", Math.ceil(inputs.length / (inputs.length > 3 ? 2 : 1)));
  };
  const drawClips = (nameOwn, choose) => {
    drawChoices(".tiles", "sample", (input) => input.value === "own" ? nameOwn() : nameOption(input), choose);
    const names = listChosen().map(({name}) => name);
    const repeats = Number(find("#repeats input:checked")?.value ?? 1);
    const model = clean(find("#model input")?.value ?? "").split(" · ")[0];
    const parts = [model, names.join(", "), repeats > 1 ? `${repeats} repeats` : ""].filter(Boolean);
    say(find("#stage .asked"), [parts.join(" · "), read("#expected .expected")].filter(Boolean).join(". "));
  };

  // 2: the race.

  let order = [];
  let ended = [];
  const startRace = () => { [order, ended] = [[], []]; };
  /* The first is on top: by rank once there is one, else who ended first, else who is further. */
  const arrange = (lanes) => {
    for (const {key, share, state, seconds} of lanes) {
      const over = share === 100 && seconds && ["waiting", "done"].includes(state);
      if (over && !ended.includes(key)) ended.push(key);
      if (!order.includes(key)) order.push(key);
    }
    const weigh = (key) => {
      const lane = lanes.find((each) => each.key === key);
      if (!lane || lane.state === "failed") return -10;
      if (lane.rank) return 2000 - 10 * lane.rank;
      return ended.includes(key) ? 1000 - 10 * ended.indexOf(key) : lane.share;
    };
    order = order.filter((key) => lanes.some((lane) => lane.key === key)).sort((one, other) => {
      const apart = weigh(other) - weigh(one);
      return Math.abs(apart) < 5 ? 0 : apart;
    });
    return order;
  };
  const makeRow = (lane) => {
    const row = make("li", "racer");
    row.innerHTML = `<span class="place"></span><strong class="name"></strong><span class="doing"></span>
      <span class="track"><span></span></span><strong class="seconds"></strong>
      <div class="words"><p dir="auto"></p></div>`;
    row.dataset.key = lane.key;
    row.style.setProperty("--engine", lane.tone);
    say(find(".name", row), lane.name);
    return row;
  };
  const drawRace = ({said, alert, left, lanes}) => {
    say(find("#stage .title"), said);
    say(find("#stage .left"), left);
    find("#stage [data-n='2']").classList.toggle("alert", alert);
    const box = find("#stage .racers");
    box.style.setProperty("--count", Math.max(lanes.length, 1));
    draw(".racers", lanes.map((lane) => [lane.key, lane.name]), () => lanes.map(makeRow));
    const places = arrange(lanes);
    for (const lane of lanes) {
      const row = find(`[data-key="${lane.key}"]`, box);
      row.style.setProperty("--at", places.indexOf(lane.key));
      row.dataset.state = lane.state;
      row.classList.toggle("unsure", lane.unsure);
      find(".track > span", row).style.width = `${lane.share}%`;
      say(find(".place", row), lane.rank ? String(lane.rank) : "");
      say(find(".doing", row), lane.doing);
      say(find(".seconds", row), lane.seconds);
      const words = JSON.stringify(lane.words);
      if (row.dataset.words === words) continue;
      row.dataset.words = words;
      find(".words p", row).replaceChildren(...lane.words.map(([text, mark]) =>
        ["ins", "del"].includes(mark) ? make(mark, "", text) : make("span", mark, text)));
      const shown = find(".words", row);
      shown.classList.toggle("cut", shown.firstChild.offsetHeight > shown.clientHeight + 2);
    }
  };

  // 3: the verdict.

  const drawVerdict = () => {
    const [said, ratio, single] = [read("#summary .summary"), read("#summary .ratio"), isSingle()];
    const parts = read("#summary .note").replace(/\.$/, "").split(" · ");
    const tellsWords = (part) => /\bword|speech|differs/i.test(part);
    draw(".poster", [said, ratio, single, parts], () => {
      const [start, end] = ratio ? said.split(ratio) : [said, ""];
      const large = make("p", "ratio", ratio, ...(single ? [make("span", "mark", "one run")] : []));
      return [
        make("p", ratio ? "lead" : "alone", start),
        ...(ratio ? [large, make("p", "lead", end)] : []),
        make("p", "told", parts.filter(tellsWords).join(" · ")),
        make("p", "aside", parts.filter((part) => !tellsWords(part)).join(" · ")),
      ];
    });
  };

  // 4: where the time went.

  const readTimes = (lane) => {
    const figures = list(".figures > div", lane).map((each) => [read("dt", each), read("dd", each)]);
    const stages = figures.map(([name, value]) => ({name, value, seconds: Number.parseFloat(value)}))
      .filter(({name, seconds}) => name in STAGES && seconds > 0);
    return {
      key: lane.dataset.engine,
      name: read(".name", lane),
      tone: lane.style.getPropertyValue("--engine"),
      rank: Number.parseInt(read(".rank", lane), 10) || Infinity,
      total: read(".seconds", lane),
      stages,
      sum: stages.reduce((sum, {seconds}) => sum + seconds, 0),
      shared: figures.some(([name, value]) => name.startsWith("Against") && value.startsWith("not")),
    };
  };
  /* How many times as fast a stage was as the baseline's; nothing where that isn't clear. */
  const compareStage = (lane, baseline, {name, seconds}) => {
    const theirs = baseline?.stages.find((stage) => stage.name === name)?.seconds;
    const counts = ["Encoder", "Decoder loop"].includes(name) && lane !== baseline && !lane.shared;
    const ratio = theirs / seconds;
    if (!counts || !(Math.abs(ratio - 1) >= 0.05)) return "";
    return ` (${ratio.toFixed(ratio < 1.2 ? 2 : 1)}×)`;
  };
  const drawTimes = () => {
    const lanes = list("#race .lane").map(readTimes).filter(({stages}) => stages.length).sort((one, other) => one.rank - other.rank);
    const most = Math.max(...lanes.map(({sum}) => sum));
    const first = find("#lanes .heads .badge")?.closest("[data-engine]").dataset.engine;
    const baseline = lanes.find(({key}) => key === first);
    draw(".stacks", [lanes, first], () => lanes.map((lane) => {
      const [bar, key] = [make("div", "stack"), make("p", "parts")];
      for (const stage of lane.stages) {
        const part = make("span");
        part.style.width = `${100 * stage.seconds / most}%`;
        const words = make("span", "", make("i"), `${stage.name} ${stage.value}${compareStage(lane, baseline, stage)}`);
        for (const each of [part, words]) each.style.setProperty("--share", `${STAGES[stage.name]}%`);
        bar.append(part);
        if (stage.seconds >= LEAST_SHARE * lane.sum) key.append(words, " ");
      }
      const row = make("li", "", make("strong", "name", lane.name), make("strong", "seconds", lane.total), bar, key);
      row.style.setProperty("--engine", lane.tone);
      return row;
    }));
    const compared = lanes.some((lane) => lane.stages.some((stage) => compareStage(lane, baseline, stage)));
    say(find("#stage .stacks + .aside"), [
      compared ? `(×): times as fast as ${baseline.name}` : "",
      isSingle() ? "one run" : "median of the runs",
      lanes.some(({shared}) => shared) ? "the engines ran at once and shared a device" : "",
    ].filter(Boolean).join(" · "));
  };

  // 5: break it.

  const readFault = () => {
    const chosen = find("#faults input:checked");
    const said = read("#fault-status [role]");
    const over = chosen && said.startsWith(`${nameOption(chosen)}:`) && find("#finding .finding") !== null;
    const running = find("#fault-stop")?.disabled === false;
    return {
      refusal: find("#faults") ? read("#fault-status .alert [role]") : "Faults can’t be run on this page.",
      story: over ? "" : read("#story"),
      line: over ? said : running ? `${said} ${read("#fault-status .clock")}` : "",
      width: running ? find("#fault-status .bar > span")?.style.width || "0%" : "",
      first: over ? read("#finding .first") : "",
      differs: over ? read("#finding .wide > p") : "",
      texts: !over ? [] : list("#finding .texts section:not(.wide)")
        .map((each) => [read("h3", each), read(".said, .none, .reason", each)]),
    };
  };
  /* A tab's parts are there once it was chosen. */
  const openFaults = () => {
    if (find("#faults")) return;
    const tabs = list("#tabs :is([role=tab], .overflow-dropdown button)");
    tabs.find((tab) => clean(tab.textContent) === "Faults")?.click();
  };
  const drawFaults = (choose) => {
    openFaults();
    drawChoices(".faults", "faults", nameOption, choose);
    const found = readFault();
    draw(".outcome", found, () => {
      const {refusal, story, line, width, first, differs, texts} = found;
      const bar = make("div", "track", make("span"));
      bar.firstChild.style.width = width;
      return [
        story && make("p", "tale", story),
        refusal ? make("p", "refusal", refusal) : line && make("p", "line", line),
        width && bar,
        first && make("p", "shows", first),
        differs && make("p", "differs", differs),
        texts.length && make("div", "pair", ...texts.map(([title, text]) =>
          make("div", "", make("h2", "", title), make("p", "fits", text)))),
      ].filter(Boolean);
    });
  };

  window.slides = {
    SLIDES, FRAME, find, list, make, say, draw, readRace,
    listChosen, startRace, drawRace, drawClips, drawVerdict, drawTimes, openFaults, drawFaults,
  };
})();
