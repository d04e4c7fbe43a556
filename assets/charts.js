/* Draws the charts that `demo/panels/charts.py` describes, once they are in view. Plotly's script
   comes from this page's own server with the first of them; in the report it is already there. */
(() => {
  const NARROW = 560;
  const CONFIG = {
    displaylogo: false,
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  const FAILED = "The chart’s script could not be loaded; the table holds the figures.";

  let loading = null;
  const loadPlotly = () => {
    if (window.Plotly) return Promise.resolve();
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("plotly.min.js", document.baseURI);
      script.onload = resolve;
      script.onerror = () => { loading = null; reject(new Error(FAILED)); };
      document.head.append(script);
    });
    return loading;
  };

  /* Choices above a chart: a row of radio buttons, or a menu. */
  const findControls = (scope) => [...scope.querySelectorAll(".choice[data-control]")];
  const readChoice = (control) =>
    Number(control.querySelector("select, input:checked").value);
  const choose = (control, index) => {
    const menu = control.querySelector("select");
    if (menu) menu.value = index;
    else control.querySelectorAll("input")[index].checked = true;
  };

  const setPath = (object, path, value) => {
    const keys = path.split(".");
    const last = keys.pop();
    for (const key of keys) object = object[key] ??= {};
    object[last] = value;
  };

  /* Values in levels of one byte each, as `pack` in Python leaves them. */
  const unpack = (trace) => {
    const [rows, columns] = trace.z.shape.split(",").map(Number);
    const levels = Uint8Array.from(atob(trace.z.bdata), (letter) => letter.charCodeAt(0));
    const {low, high} = trace.meta;
    const read = (level) => (level === 255 ? null : low + ((high - low) * level) / 254);
    trace.z = Array.from({length: rows}, (_, row) =>
      Array.from(levels.subarray(row * columns, (row + 1) * columns), read));
  };

  /* Colours are CSS, as the theme has it; Plotly wants them worked out. `--mix-COLOUR-SHARE` is so
     much of a colour on the page's own, the colour being lighter where the page is dark. */
  const mix = (css) => {
    const [, colour, share] = css.match(/--mix-([0-9a-f]{6})-(\d+)/) ?? [];
    const tone = `color-mix(in oklab, #${colour} var(--lift), white)`;
    return colour ? `color-mix(in oklab, ${tone} ${share}%, var(--sheet))` : css;
  };
  const makeResolver = (plot) => {
    const probe = document.createElement("span");
    const brush = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const known = new Map();
    plot.append(probe);
    const resolve = (css) => {
      if (!known.has(css)) {
        probe.style.color = "";
        probe.style.color = mix(css);
        brush.clearRect(0, 0, 1, 1);
        brush.fillStyle = getComputedStyle(probe).color;
        brush.fillRect(0, 0, 1, 1);
        const [red, green, blue, alpha] = brush.getImageData(0, 0, 1, 1).data;
        known.set(css, `rgba(${red},${green},${blue},${(alpha / 255).toFixed(3)})`);
      }
      return known.get(css);
    };
    return {resolve, done: () => probe.remove()};
  };
  const isColour = (value) => typeof value === "string" && value.startsWith("var(");
  const resolveAll = (object, resolve) => {
    for (const [key, value] of Object.entries(object)) {
      if (isColour(value)) object[key] = resolve(value);
      else if (value && typeof value === "object" && typeof value[0] !== "number") {
        resolveAll(value, resolve);
      }
    }
  };

  const makeTemplate = (canvas) => {
    const {fontFamily: family, fontSize} = getComputedStyle(canvas);
    const size = parseFloat(fontSize);
    const axis = {
      gridcolor: "var(--line)", zerolinecolor: "var(--line)", linecolor: "var(--quiet)",
      automargin: true, zeroline: false, title: {font: {size}},
    };
    const legend = {orientation: "h", x: 0, y: 1, yref: "container", yanchor: "top"};
    if (canvas.clientWidth < NARROW) {
      Object.assign(legend, {xref: "container", font: {size: 0.85 * size}});
    }
    return {
      layout: {
        font: {family, size, color: "var(--body-text-color)"},
        paper_bgcolor: "var(--sheet)", plot_bgcolor: "var(--sheet)",
        xaxis: axis, yaxis: axis,
        legend,
        hoverlabel: {
          bgcolor: "var(--body-text-color)", bordercolor: "var(--body-text-color)",
          font: {color: "var(--sheet)"}, align: "left",
        },
        modebar: {
          bgcolor: "var(--sheet)", color: "var(--quiet)", activecolor: "var(--body-text-color)",
        },
      },
    };
  };

  /* A figure with its choices made and its colours worked out. */
  const compose = (plot) => {
    const {data, layout} = JSON.parse(plot.dataset.figure);
    for (const trace of data) if (trace.meta?.high !== undefined) unpack(trace);
    for (const control of findControls(plot)) {
      const {traces, layout: changes} = JSON.parse(control.dataset.options)[readChoice(control)];
      for (const [trait, values] of Object.entries(traces)) {
        values.forEach((value, at) => { if (value !== null) setPath(data[at], trait, value); });
      }
      for (const [path, value] of Object.entries(changes)) setPath(layout, path, value);
    }
    layout.template = makeTemplate(plot.querySelector(".canvas"));
    layout.uirevision = findControls(plot).map(readChoice).join();
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;  // a finger scrolls
    const {resolve, done} = makeResolver(plot);
    resolveAll({data, layout}, resolve);
    done();
    return {data, layout};
  };

  /* Words over a spectrogram: those that have room, in a few rows; more of them when zoomed in. */
  const LETTER = 7.5;
  const thinOut = (canvas) => {
    canvas.data.forEach((trace, at) => {
      if (!trace.meta?.rows) return;
      const axis = canvas._fullLayout.xaxis;
      const {rows} = trace.meta;
      const ends = rows.map(() => 0);
      const text = [];
      const y = Array.from(trace.x, (seconds, index) => {
        const left = axis.l2p(seconds);
        const right = left + (trace.hovertext[index].length + 2) * LETTER;
        const row = right > axis._length ? -1 : ends.findIndex((end) => end <= left);
        if (row >= 0 && left >= 0) ends[row] = right;
        text.push(row >= 0 && left >= 0 ? trace.hovertext[index] : "");
        return rows[Math.max(row, 0)];
      });
      if (text.join("\n") !== Array.from(trace.text).join("\n")) {
        Plotly.restyle(canvas, {text: [text], y: [y]}, [at]);
      }
    });
  };

  /* Where the player is: a line over every axis that is the clip's time, or none for null. */
  let time = null;
  window.moveCursor = (seconds) => {
    time = seconds;
    for (const canvas of document.querySelectorAll(".plot[data-drawn] .canvas")) {
      const {_fullLayout: layout, data} = canvas;
      const timed = data?.filter((trace) => trace.meta?.seconds === "x") ?? [];
      const axes = new Set(timed.map((trace) => trace.xaxis ?? "x"));
      canvas.querySelectorAll(".cursor").forEach((line) => { line.hidden = true; });
      if (seconds === null || !layout) continue;
      for (const name of axes) {
        const axis = layout[name.replace("x", "xaxis")];
        const place = axis.l2p(seconds);
        let line = canvas.querySelector(`.cursor[data-axis="${name}"]`);
        if (!line) {
          line = canvas.appendChild(document.createElement("div"));
          Object.assign(line, {className: "cursor"}).dataset.axis = name;
        }
        line.hidden = place < 0 || place > axis._length;
        line.style.cssText = `left:${axis._offset + place}px;top:${layout._size.t}px;height:${layout._size.h}px`;
      }
    }
  };

  const answerClick = (plot, point) => {
    const trace = plot.querySelector(".canvas").data[point.curveNumber];
    const seconds = trace.meta?.seconds === "x" ? point.x : point.customdata;
    if (typeof seconds === "number") window.playFrom?.(seconds);
    if (typeof point.customdata === "string") {
      plot.dispatchEvent(new CustomEvent("pick", {bubbles: true, detail: point.customdata}));
    }
    const control = document.querySelector(`[data-control="${plot.dataset.chooses}"]`);
    if (control) chooseAll(control, point.pointNumber);
  };

  const draw = async (plot) => {
    const canvas = plot.querySelector(".canvas");
    try {
      await loadPlotly();
    } catch {
      canvas.textContent = FAILED;
      return;
    }
    if (!canvas.clientWidth) {
      views.observe(plot);
      return;
    }
    if (!plot.dataset.drawn && plot.clientWidth < NARROW) {
      for (const control of findControls(plot)) {
        if (control.dataset.narrow) choose(control, Number(control.dataset.narrow));
      }
    }
    const {data, layout} = compose(plot);
    const isNew = !canvas.querySelector(".plot-container");
    await (isNew ? Plotly.newPlot : Plotly.react)(canvas, data, layout, CONFIG);
    thinOut(canvas);
    if (!canvas.dataset.listens) {
      canvas.dataset.listens = "1";
      canvas.on("plotly_click", ({points}) => answerClick(plot, points[0]));
      canvas.on("plotly_relayout", () => { thinOut(canvas); moveCursor(time); });
    }
    plot.dataset.drawn = "1";
    sizes.observe(canvas);
  };
  const redraw = () => document.querySelectorAll(".plot[data-drawn]").forEach(draw);

  /* Controls of one name move together. */
  const chooseAll = (control, index) => {
    for (const each of document.querySelectorAll(`[data-control="${control.dataset.control}"]`)) {
      choose(each, index);
      const plot = each.closest(".plot");
      if (plot.dataset.drawn) draw(plot);
    }
  };
  document.addEventListener("change", (event) => {
    const control = event.target.closest(".plot .choice[data-control]");
    if (control) chooseAll(control, readChoice(control));
  });

  document.addEventListener("click", async ({target}) => {
    const plot = target.closest?.(".save-png")?.closest(".plot");
    if (!plot) return;
    if (!plot.dataset.drawn) await draw(plot);
    const canvas = plot.querySelector(".canvas");
    const image = {format: "png", scale: 2, filename: plot.dataset.name};
    if (plot.dataset.drawn) Plotly.downloadImage(canvas, image);
  });

  const sizes = new ResizeObserver((entries) => {
    for (const {target} of entries) {
      const old = target._fullLayout;
      if (old && target.clientWidth && old.width !== target.clientWidth) Plotly.Plots.resize(target);
    }
  });
  const views = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      if (!isIntersecting) continue;
      views.unobserve(target);
      draw(target);
    }
  }, {rootMargin: "200px"});

  /* Charts come and change with the panels; the theme changes with a class, or the system's. */
  const watch = () => {
    for (const plot of document.querySelectorAll(".plot[data-figure]:not([data-watched])")) {
      plot.dataset.watched = "1";
      views.observe(plot);
    }
  };
  const start = () => {
    watch();
    new MutationObserver((records) => {
      watch();
      for (const {target, attributeName} of records) {
        if (attributeName && target.dataset.drawn) draw(target);
      }
    }).observe(document.body, {subtree: true, childList: true, attributeFilter: ["data-figure"]});
    const themes = new MutationObserver(redraw);
    for (const each of [document.documentElement, document.body]) {
      themes.observe(each, {attributeFilter: ["class", "data-theme"]});
    }
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => document.querySelectorAll(".plot[data-figure]").forEach(draw));
  if (document.body) start();
  else document.addEventListener("DOMContentLoaded", start);
})();
