"""The strip in the message box: the pictures of the chat at a glance. A click leaves one out of the prompt, or takes it in again.

The panel writes it, unseen, with everything else that it shows, and the browser copies it into the message box. So it needs no
component of its own, and a chat without pictures has none. Beside the paper clip stands a camera, where the model sees. Camera and
panel open above the message box, or below it where more room is, and go back to their place at Escape or a click elsewhere.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from .texts import say

CSS = """
#multimodal_vcla_strip {display: flex; align-items: center; gap: 6px; width: 100%; font-size: 12px; line-height: 1.3; min-width: 0}
#multimodal_vcla_strip:empty {display: none}
#multimodal_vcla_strip .vcla-thumbnails {display: flex; gap: 4px; overflow-x: auto; flex-shrink: 99; min-width: 44px}
#multimodal_vcla_strip button {flex: none; padding: 0; border: 1px solid #8886; border-radius: 4px; background: none; cursor: pointer}
#multimodal_vcla_strip button[aria-pressed] {width: 40px; height: 30px; overflow: hidden}
#multimodal_vcla_strip button[aria-pressed=false] {border-style: dashed}
#multimodal_vcla_strip button[aria-pressed=false] img {opacity: .25}
#multimodal_vcla_strip button:focus-visible {outline: 2px solid #48f}
#multimodal_vcla_strip img {width: 100%; height: 100%; object-fit: cover; margin: 0}
#multimodal_vcla_strip .vcla-sum {white-space: nowrap; overflow: hidden; text-overflow: ellipsis; opacity: .75}
#multimodal_vcla_strip .vcla-more {padding: 0 6px; margin-left: auto; color: inherit}
#multimodal_vcla_snap {flex: none; align-self: flex-end; width: 24px; height: 32px; padding: 2px; border: 0; background: none}
#multimodal_vcla_snap {color: inherit; opacity: .75; cursor: pointer}
#multimodal_vcla_snap[hidden] {display: none}
#multimodal_vcla_snap:hover, #multimodal_vcla_snap:focus-visible {opacity: 1}
#multimodal_vcla_snap:disabled {opacity: .3; cursor: default}
#multimodal_vcla_snap svg {width: 20px; height: 20px; margin: auto; display: block}
.vcla-over {position: fixed !important; z-index: 60; overflow-y: auto !important; padding: 12px !important}
.vcla-over {background: var(--background-fill-primary) !important; border: 1px solid var(--border-color-primary) !important}
.vcla-over {border-radius: 12px !important; box-shadow: 0 4px 24px #0006}
"""

JS = """
let putBack = () => {};
const over = (button, ...path) => {
    const [block] = path.map((id) => document.getElementById(id)).slice(-1), wasOver = block?.classList.contains("vcla-over");
    putBack();
    if (!block || wasOver) return;
    for (const id of path) document.querySelector(`#${id} > .label-wrap:not(.open)`)?.click();
    let hidden = block;  // the web UI hides it with its controls, and its tab where it is one
    while (hidden !== null && getComputedStyle(hidden).display !== "none") hidden = hidden.parentElement;
    const display = hidden?.style.display;
    if (hidden !== null) hidden.style.display = "flex";
    const room = document.getElementById("chat-input-row").getBoundingClientRect();
    const width = Math.min(Math.max(room.width, 320), innerWidth - 16);
    const left = Math.max(8, Math.min(room.left, innerWidth - 8 - width));
    const above = room.top - 16, below = innerHeight - room.bottom - 16, max = `min(65vh, ${Math.max(above, below)}px)`;
    Object.assign(block.style, {left: `${left}px`, width: `${width}px`, maxHeight: max});
    if (above >= below) block.style.bottom = `${innerHeight - room.top + 8}px`;
    else block.style.top = `${room.bottom + 8}px`;
    block.classList.add("vcla-over");
    button.setAttribute("aria-expanded", "true");
    putBack = () => {
        putBack = () => {};
        block.classList.remove("vcla-over");
        Object.assign(block.style, {left: "", width: "", maxHeight: "", bottom: "", top: ""});
        document.querySelectorAll("[aria-expanded][data-vcla]").forEach((each) => each.setAttribute("aria-expanded", "false"));
        if (hidden !== null) hidden.style.display = display;
        cameraOff();
    };
};
// gradio lets go of a camera only when a picture is taken; where there is no frame, none is.
const cameraOff = () => {
    const camera = document.getElementById("multimodal_vcla_camera"), video = camera?.querySelector("video");
    if (!video?.srcObject) return;
    video.srcObject.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    camera.querySelector("[aria-label='capture photo']")?.click();
};
document.addEventListener("playing", ({target}) => {  // allowed after its place was closed
    const camera = target.closest("#multimodal_vcla_camera");
    if (camera !== null && camera.offsetParent === null) setTimeout(cameraOff);
}, true);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") putBack(); });
document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest?.(".vcla-over, [data-vcla], .options")) putBack();
});
document.addEventListener("click", (event) => {
    if (event.target.closest?.("#multimodal_vcla_take") && document.querySelector("#multimodal_vcla_camera img")) putBack();
});
const copyStrip = () => {
    const source = document.getElementById("multimodal_vcla_source"), box = document.getElementById("chat-input-container");
    if (source === null || box === null) return;
    let strip = document.getElementById("multimodal_vcla_strip");
    if (strip === null) {
        strip = document.createElement("div");
        strip.id = "multimodal_vcla_strip";
        strip.addEventListener("click", (event) => {
            const button = event.target.closest("button");
            if (button?.dataset.number)
                document.querySelectorAll("#multimodal_vcla_which input")[button.dataset.number - 1]?.click();
            else if (button) over(button, "multimodal_vcla");
        });
        box.prepend(strip);
    }
    if (strip.shown !== source.innerHTML) {
        strip.innerHTML = strip.shown = source.innerHTML;
        const isOver = document.querySelector("#multimodal_vcla.vcla-over") !== null;
        strip.querySelector(".vcla-more")?.setAttribute("aria-expanded", isOver);
    }
    const clip = document.querySelector("#chat-input .upload-button");
    let snap = document.getElementById("multimodal_vcla_snap");
    if (snap === null && clip !== null && source.dataset.camera) {
        snap = document.createElement("button");
        Object.assign(snap, {id: "multimodal_vcla_snap", type: "button", innerHTML: `CAMERA`, disabled: !navigator.mediaDevices});
        snap.dataset.vcla = "";
        snap.setAttribute("aria-expanded", "false");
        snap.addEventListener("click", () => {
            over(snap, "multimodal_vcla", "multimodal_vcla_webcam");
            if (snap.getAttribute("aria-expanded") === "true")
                document.querySelector("#multimodal_vcla_camera [title='grant webcam access'] button")?.click();
        });
        clip.after(snap);
        const {position, left, bottom} = getComputedStyle(clip);
        if (position === "absolute") Object.assign(snap.style, {position, bottom, left: `${parseFloat(left) + 28}px`, zIndex: 5});
    }
    if (snap === null) return;
    snap.hidden = !source.dataset.camera;
    snap.title = snap.ariaLabel = (snap.disabled ? source.dataset.none : source.dataset.camera) ?? "";
};
""".replace(
    "CAMERA",
    '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round" aria-hidden="true">'
    '<path d="M3 7h4l2-3h6l2 3h4v13H3Z"/><circle cx="12" cy="13" r="4"/></svg>',
)


@dataclass(frozen=True)
class Entry:
    """A picture of the chat as the user is shown it.

    Attributes:
        name: its file's.
        thumbnail: a `data:` address; empty where it cannot be decoded.
        note: what it costs, or why it is not in the prompt.
        is_wanted: the user has not left it out.
        is_in: it goes into the prompt, or went into the last one.
    """

    name: str
    thumbnail: str
    note: str
    is_wanted: bool
    is_in: bool


def render(entries: Sequence[Entry], summary: str, has_camera: bool) -> str:
    """The strip as HTML, unseen; empty for a chat without pictures.

    Args:
        entries: the pictures of the chat.
        summary: what they take together, or why none is seen.
        has_camera: a camera is offered.
    """
    buttons = [
        f'<button type="button" data-number="{number}" aria-pressed="{str(entry.is_in).lower()}" title="{_title(number, entry)}">'
        f'<img src="{entry.thumbnail}" alt="{html.escape(entry.name)}"></button>'
        for number, entry in enumerate(entries, 1)
    ]
    name = html.escape(say("more"))
    more = (
        f'<button type="button" class="vcla-more" data-vcla aria-expanded="false" title="{name}" aria-label="{name}">⋯</button>'
    )
    shown = f'<span class="vcla-thumbnails">{"".join(buttons)}</span><span class="vcla-sum">{html.escape(summary)}</span>{more}'
    camera = f' data-camera="{html.escape(say("webcam"))}" data-none="{html.escape(say("no_webcam"))}"' if has_camera else ""
    return f'<div id="multimodal_vcla_source" hidden{camera}>{shown if entries else ""}</div>'


def _title(number: int, entry: Entry) -> str:
    action = say("leave_out" if entry.is_wanted else "take_in")
    return html.escape(f"{number}. {entry.name}: {entry.note}. {action}")
