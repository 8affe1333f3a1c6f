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

  // gradio's own names of its controls, for screen readers and on hover, become those of texts.py in the chosen language.
  let labels = [], known = "";
  const renamed = (text) => {
    for (const [forms, wanted] of labels) {
      for (const form of forms) {
        const [before, after] = form.split("*");
        if (after === undefined && text === form) return wanted;
        if (after === undefined || !text.startsWith(before) || !text.endsWith(after) || text.length < form.length) continue;
        const within = renamed(text.slice(before.length, text.length - after.length));
        return wanted.replace("*", () => within);
      }
    }
    return text;
  };
  const ATTRIBUTES = ["aria-label", "title", "alt"], TEXTS = "#camera, [data-testid=status-tracker], .toast-body, .sr-only";
  const rename = (node) => {
    if (node.nodeType === Node.TEXT_NODE) {
      const text = node.data.trim(), now = node.parentElement?.closest(TEXTS) ? renamed(text) : text;
      if (now !== text) node.data = now;
    }
    if (!(node instanceof Element)) return;
    for (const name of ATTRIBUTES) {
      const text = node.getAttribute(name), now = text && renamed(text);
      if (now !== text) node.setAttribute(name, now);
    }
    if (node.matches("#chat textarea:not([aria-label])")) node.setAttribute("aria-label", renamed("Edit"));
    node.childNodes.forEach(rename);
  };
  new MutationObserver((changes) => {
    const now = document.querySelector("#chats select")?.dataset.labels ?? known;
    if (now !== known) {
      labels = JSON.parse(known = now);
      rename(document.body);
    } else {
      changes.forEach(({ type, target, addedNodes }) => (type === "childList" ? addedNodes.forEach(rename) : rename(target)));
    }
  }).observe(document.body, { subtree: true, childList: true, characterData: true, attributeFilter: ATTRIBUTES });

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
