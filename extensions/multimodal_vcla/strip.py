"""The strip in the message box: the pictures of the chat at a glance. A click leaves one out of the prompt, or takes it in again.

The panel writes it, unseen, with everything else that it shows, and the browser copies it into the message box. So it needs no
component of its own, and a chat without pictures has none.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from .texts import say

CSS = """
#multimodal_vcla_strip {display: flex; align-items: center; gap: 6px; width: 100%; font-size: 12px; line-height: 1.3; min-width: 0}
#multimodal_vcla_strip:empty {display: none}
#multimodal_vcla_strip .vcla-thumbnails {display: flex; gap: 4px; overflow-x: auto; min-width: 0}
#multimodal_vcla_strip button {flex: none; padding: 0; border: 1px solid #8886; border-radius: 4px; background: none; cursor: pointer}
#multimodal_vcla_strip button[aria-pressed] {width: 40px; height: 30px; overflow: hidden}
#multimodal_vcla_strip button[aria-pressed=false] {border-style: dashed}
#multimodal_vcla_strip button[aria-pressed=false] img {opacity: .25}
#multimodal_vcla_strip button:focus-visible {outline: 2px solid #48f}
#multimodal_vcla_strip img {width: 100%; height: 100%; object-fit: cover; margin: 0}
#multimodal_vcla_strip .vcla-sum {white-space: nowrap; overflow: hidden; text-overflow: ellipsis; opacity: .75}
#multimodal_vcla_strip .vcla-more {padding: 0 6px; margin-left: auto; color: inherit}
"""

JS = """
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
            else if (button) {
                document.getElementById("extensions").style.display = "flex";  // the web UI hides it with its controls
                document.getElementById("multimodal_vcla").scrollIntoView({behavior: "smooth"});
            }
        });
        box.prepend(strip);
    }
    if (strip.innerHTML !== source.innerHTML) strip.innerHTML = source.innerHTML;
};
"""


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


def render(entries: Sequence[Entry], summary: str) -> str:
    """The strip as HTML, unseen; empty for a chat without pictures."""
    buttons = [
        f'<button type="button" data-number="{number}" aria-pressed="{str(entry.is_in).lower()}" title="{_title(number, entry)}">'
        f'<img src="{entry.thumbnail}" alt="{html.escape(entry.name)}"></button>'
        for number, entry in enumerate(entries, 1)
    ]
    more = f'<button type="button" class="vcla-more" title="{html.escape(say("more"))}">⋯</button>'
    shown = f'<span class="vcla-thumbnails">{"".join(buttons)}</span><span class="vcla-sum">{html.escape(summary)}</span>{more}'
    return f'<div id="multimodal_vcla_source" hidden>{shown if entries else ""}</div>'


def _title(number: int, entry: Entry) -> str:
    action = say("leave_out" if entry.is_wanted else "take_in")
    return html.escape(f"{number}. {entry.name}: {entry.note}. {action}")
