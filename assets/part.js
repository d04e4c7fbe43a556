/* The part of the clip that is transcribed, chosen on the waveform: a slider for each end, which
   keys move as well. They show what the box beside the player holds, and fill it; where it names
   several parts, these are only shown. */
(() => {
  const find = (selector) => document.querySelector(selector);
  const ENDS = [["from", "Part of the clip: from"], ["to", "Part of the clip: to"]];
  const STEP = 0.1;

  /* The player's media element, which knows the clip's length, is not in the document. */
  let length = 0;
  const create = document.createElement;
  document.createElement = function (name, ...rest) {
    const made = create.call(this, name, ...rest);
    if (String(name).toLowerCase() === "audio") {
      made.addEventListener("durationchange", () => {
        if (!Number.isFinite(made.duration) || made.src.startsWith("data:")) return;
        length = made.duration;
        draw();
      });
    }
    return made;
  };

  const read = () => (find("#clip_timestamps input")?.value.match(/[\d.]+/g) ?? []).map(Number);
  const write = (from, to) => {
    const box = find("#clip_timestamps input");
    const parts = [from.toFixed(1), ...(to < length - STEP / 2 ? [to.toFixed(1)] : [])];
    box.value = from > 0 || parts.length > 1 ? parts.join(", ") : "";
    box.dispatchEvent(new Event("input", {bubbles: true}));
  };

  /* Shade what is left out; an odd number of times leaves the last part open, as in Whisper. */
  const shade = (times) => {
    const ends = times.length % 2 ? [...times, length] : times;
    const stops = ends.map((time) => `${(100 * Math.min(time, length)) / length}%`);
    let at = "0%";
    const bands = [];
    for (let n = 0; n < stops.length; n += 2) {
      bands.push(`var(--out) ${at} ${stops[n]}`, `#0000 ${stops[n]} ${stops[n + 1]}`);
      at = stops[n + 1];
    }
    return `linear-gradient(to right, ${[...bands, `var(--out) ${at} 100%`].join(", ")})`;
  };

  const build = (place) => {
    const part = create.call(document, "div");
    part.className = "part";
    for (const [name, label] of ENDS) {
      const slider = create.call(document, "input");
      Object.assign(slider, {type: "range", min: 0, step: STEP, className: name});
      slider.setAttribute("aria-label", label);
      slider.addEventListener("input", () => move(part, slider));
      part.append(slider);
    }
    place.append(part);
    return part;
  };
  const move = (part, moved) => {
    const [from, to] = part.children;
    if (Number(to.value) - Number(from.value) < STEP) {
      const other = moved === from ? -STEP : STEP;
      moved.value = Number(moved === from ? to.value : from.value) + other;
    }
    write(Number(from.value), Number(to.value));
    draw();
  };

  const draw = () => {
    const place = find("#audio .waveform-container");
    if (!place || !length) return;
    const part = place.querySelector(".part") ?? build(place);
    const times = read();
    const [from, to] = part.children;
    const values = [times[0] ?? 0, times[1] ?? length];
    for (const [slider, value] of [[from, values[0]], [to, values[1]]]) {
      slider.max = length;
      slider.value = value;
      slider.hidden = times.length > 2;
      slider.setAttribute("aria-valuetext", `${value.toFixed(1)} s`);
    }
    part.style.background = times.length ? shade(times) : "";
  };
  window.showPart = draw;
  new MutationObserver(() => {
    if (find("#audio .waveform-container:not(:has(.part))")) draw();
  }).observe(document, {subtree: true, childList: true});
})();
