/* The upload box takes any file: what is in it, the server finds out. Gradio's box goes by the type
   that the browser guesses from a name, and films and names without an ending are no audio to it. */
(() => {
  const asAudio = (files) => {
    const all = new DataTransfer();
    for (const file of files) {
      const type = file.type.startsWith("audio/") ? file.type : "audio/x-unknown";
      all.items.add(new File([file], file.name, {type, lastModified: file.lastModified}));
    }
    return all;
  };
  const isAudio = (files) => [...files].every((file) => file.type.startsWith("audio/"));
  const inBox = (element) => element.closest?.("#audio");

  document.addEventListener("click", ({target}) => {
    for (const input of inBox(target)?.querySelectorAll("input[type=file]") ?? []) {
      input.removeAttribute("accept"); // else a film can't be picked
    }
  }, true);
  document.addEventListener("change", ({target}) => {
    if (target.type === "file" && inBox(target) && !isAudio(target.files)) {
      target.files = asAudio(target.files).files;
    }
  }, true);
  document.addEventListener("drop", (event) => {
    const files = event.dataTransfer?.files ?? [];
    if (!inBox(event.target) || isAudio(files)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const again = {bubbles: true, cancelable: true, dataTransfer: asAudio(files)};
    event.target.dispatchEvent(new DragEvent("drop", again));
  }, true);
})();
