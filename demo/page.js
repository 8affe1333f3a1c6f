() => {
  // Pictures dropped or pasted anywhere on the page join the message; a picture is shown large on a click.
  const box = () => document.querySelector("#box");
  const give = (files) => {
    const data = new DataTransfer();
    [...files].filter((file) => file.type.startsWith("image/") || !file.type).forEach((file) => data.items.add(file));
    const area = box()?.querySelector("textarea");
    if (!area || !data.files.length) return;
    area.focus();
    area.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  };
  const isBox = (event) => event.target instanceof Element && event.target.closest("#box, #camera");
  document.addEventListener("dragover", (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length || isBox(event)) return;
    event.preventDefault();
    event.stopPropagation();
    give(event.dataTransfer.files);
  }, true);
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length || isBox(event)) return;
    event.preventDefault();
    give(event.clipboardData.files);
  }, true);

  // A form in a message stays what is written in it: nothing that could be sent, which the page's policy would stop only then.
  const unform = () => document.querySelectorAll("#chat form").forEach((form) => form.replaceWith(...form.childNodes));
  new MutationObserver(unform).observe(document.body, { subtree: true, childList: true });

  const large = document.createElement("dialog");
  large.id = "large";
  large.append(document.createElement("img"));
  large.addEventListener("click", () => large.close());
  document.body.append(large);
  const open = (image) => {
    Object.assign(large.firstChild, { src: image.src, alt: image.alt });
    large.showModal();
  };
  const shown = (target) => target instanceof Element && target.closest(".pictures img");
  document.addEventListener("click", (event) => shown(event.target) && open(event.target), true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && shown(event.target)) open(event.target);
  });

  // A camera that cannot be used says why.
  const media = navigator.mediaDevices;
  if (media) {
    const ask = media.getUserMedia.bind(media);
    media.getUserMedia = async (wanted) => {
      try {
        return await ask(wanted);
      } catch (error) {
        const reasons = { NotFoundError: "absent", OverconstrainedError: "absent", NotAllowedError: "denied" };
        window.kept.say(reasons[error.name] ?? "occupied");
        throw error;
      }
    };
  } else {
    // Browsers have no camera for a page that comes from another machine without encryption.
    document.addEventListener("click", (event) => event.target.closest?.("#camera button") && window.kept.say("insecure"), true);
  }
}
