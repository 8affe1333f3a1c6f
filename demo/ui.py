"""The page itself: gradio's components, where they stand, and which handler is called when they are used."""

from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware

from pipelines.images import MAX_BYTES

from .answering import SLIDERS
from .guard import Guard
from .handlers import TITLE, Handlers
from .models import Models
from .session import Session
from .texts import LANGUAGES, TEXTS

LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
    {"left": "$", "right": "$", "display": False},
]
KEPT = Path(__file__).with_name("kept.js")
CSS, MAPS_CSS = (Path(__file__).with_name(name) for name in ("page.css", "maps.css"))
SCRIPT = Path(__file__).with_name("page.js")
THEME = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"])
AT_ONCE = {"concurrency_limit": None, "show_progress": "hidden"}  # but through the queue, or gradio would swallow the warnings


class ChatPage(Handlers):
    """The page.

    Args:
        models: that can answer.
        folder: where previews and saved chats go.
        is_streaming: show answers while they are written.
        num_at_once: how many answers a model can write at the same time.
    """

    def __init__(self, models: Models, folder: Path, is_streaming: bool = True, num_at_once: int = 1):
        super().__init__(models, folder, is_streaming)
        self.blocks = self._build(num_at_once)

    def _build(self, num_at_once: int) -> gr.Blocks:
        queue = {"concurrency_id": "model", "concurrency_limit": num_at_once}
        with gr.Blocks(
            title=TITLE, fill_height=True, fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)
        ) as blocks:
            session = gr.State(Session())
            with gr.Row(equal_height=True):
                gr.Markdown(f"### {TITLE}", elem_id="title")
                chats = gr.HTML(elem_id="chats")
                choices = [(name, language) for language, name in LANGUAGES.items()]
                language = self._put(
                    gr.Radio(choices, value="en", show_label=False, container=False, elem_id="language"), label="language"
                )
            knows = gr.HTML(elem_id="knows", visible=False)
            with gr.Row(equal_height=False, scale=1):
                with gr.Column(scale=5, min_width=320):
                    chat = self._put(
                        gr.Chatbot(
                            show_label=False,
                            height=f"calc(100vh - {21 if self._has_knows() else 17.5}rem)",
                            min_height=320,
                            editable="user",
                            latex_delimiters=LATEX,
                            allow_tags=False,
                            buttons=["copy"],
                            group_consecutive_messages=False,
                            elem_id="chat",
                        ),
                        placeholder="placeholder",
                    )
                    context = gr.HTML(elem_id="context")
                    box = self._put(
                        gr.MultimodalTextbox(
                            file_types=["image"],
                            file_count="multiple",
                            show_label=False,
                            max_plain_text_length=1_000_000,
                            autofocus=True,
                            elem_id="box",
                        ),
                        placeholder="question",
                        label="question",
                    )
                with gr.Column(scale=2, min_width=300, elem_id="side"):
                    with self._put(
                        gr.Accordion(open=False, elem_id="models", visible=len(self.models) > 1), label="model"
                    ) as choice:
                        offers = gr.HTML(elem_id="offers")
                    is_looking = self._put(gr.Checkbox(True, container=False, elem_id="is_looking"), label="is looking")
                    looks = gr.HTML(elem_id="looks", visible=False)
                    note = gr.Markdown(elem_id="note", visible=False)
                    with self._put(gr.Accordion(open=False, elem_id="camera"), label="camera"):
                        camera = gr.Image(
                            sources=["webcam"],
                            webcam_options=gr.WebcamOptions(mirror=False),
                            type="filepath",
                            format="png",
                            show_label=False,
                            buttons=[],
                        )
                    with self._put(gr.Accordion(open=False, elem_id="settings"), label="settings"):
                        settings = [self._put(gr.Checkbox(True), label="do_sample")]
                        settings += [
                            self._put(gr.Slider(*limits[:2], limits[3], step=limits[2]), label=name)
                            for name, limits in SLIDERS.items()
                        ]
                    with gr.Row():
                        save = self._put(gr.Button(size="sm", min_width=80, elem_id="save"), value="save")
                        clear = self._put(gr.Button(size="sm", min_width=80, elem_id="clear"), value="clear")
                        undo = self._put(gr.Button(size="sm", min_width=80, elem_id="undo", visible=False), value="undo")
                    saved = gr.DownloadButton(elem_id="download")
            # What the browser's scripts and the server hand each other.
            kept, files = gr.JSON(visible="hidden"), gr.File(file_count="multiple", visible="hidden")
            opener, picked = gr.Button(visible="hidden", elem_id="open"), gr.JSON(visible="hidden")
            picker = gr.Button(visible="hidden", elem_id="pick")

            worded = [knows, offers, *[component for component, _ in self.worded]]
            look = {"fn": self.look, "inputs": [session, is_looking], "outputs": [looks, note, context]}
            opened = [chat, context, looks, note, undo]
            blocks.load(
                self.start,
                [kept, files, session],
                [session, language, box, *opened, chats, *worded],
                js=KEPT.read_text(encoding="utf-8"),
            ).then(None, js="() => window.kept.begin()").then(
                self.wait_for_model, session, [context, is_looking, *settings], **queue
            ).then(**look, show_progress="hidden", **queue)
            opener.click(self.open, [kept, files, session], opened, js="() => window.kept.open()", queue=False).then(
                None, js="() => window.kept.begin()"
            ).then(**look, show_progress="hidden", **queue)
            choice.expand(self.offers, session, offers, **AT_ONCE)
            picker.click(
                self.pick,
                [picked, session],
                [chat, context, looks, note, *worded],
                js="() => [window.kept.model(), null]",
                **AT_ONCE,
            ).then(self.wait_for_model, session, [context, is_looking, *settings], **queue).then(
                **look, show_progress="hidden", **queue
            )
            kept.change(None, kept, js="(chat) => window.kept.save(chat)")
            language.input(self.relabel, [language, session], [chat, context, chats, *worded], queue=False).then(
                None, language, js="(language) => window.kept.speak(language)"
            ).then(**look, show_progress="hidden", **queue)
            asked = [
                box.submit(self.ask, [box, session], [chat, box], **AT_ONCE),
                chat.example_select(self.ask_example, session, [chat, box], **AT_ONCE),
                chat.option_select(self.ask_suggestion, session, [chat, box], **AT_ONCE),
                chat.retry(self.ask_again, session, [chat, box], **AT_ONCE),
                chat.edit(self.ask_edited, session, [chat, box], **AT_ONCE),
            ]
            for event in asked:
                event.then(self._snapshot, session, kept, **AT_ONCE)
                event.then(
                    self.write, [session, *settings], [chat, context, box, undo, kept], show_progress_on=chat, **queue
                ).then(self.settle, session, [box, kept], **AT_ONCE).then(**look, show_progress="hidden", **queue)
            box.stop(self.stop, session, queue=False)
            # The end of an answer may be on its way to the browser, and be drawn over the empty chat.
            gr.on([clear.click, chat.clear], self.clear, session, [chat, context, looks, note, undo], queue=False).then(
                self._messages, session, chat, **AT_ONCE
            ).then(self._snapshot, session, kept, **AT_ONCE)
            gr.on([clear.click, chat.clear], None, js="() => window.kept.drop()")  # at once, before a reload
            undo.click(self.undo, session, [chat, context, undo], queue=False).then(self._snapshot, session, kept, **AT_ONCE)
            chat.select(self.look_at, [session, is_looking], look["outputs"], show_progress="hidden", **queue)
            is_looking.input(**look, **queue)
            camera.input(self.attach, [camera, box], [camera, box], queue=False)
            save.click(self.save, [session, is_looking], saved, **queue).then(
                None, js="() => document.querySelector('#download').click()"
            )
        return blocks

    def _put(self, component, **words: str):
        """Remember which words of `TEXTS` a component shows, and in which of its properties."""
        self.worded.append((component, words))
        for name, key in words.items():
            setattr(component, name, TEXTS["en"][key])
        return component

    def _has_knows(self) -> bool:
        """Whether there is a line above the chat."""
        return any(model.folder is not None or any(model.card.knows.values()) for model in self.models)

    def launch(self, host: str, port: int | None, is_shared: bool, opens_browser: bool) -> str:
        """Serve the page from a thread of its own.

        Returns:
            Its address.

        Raises:
            OSError: the port is taken.
        """
        self.blocks.queue(api_open=False)
        _, local_url, share_url = self.blocks.launch(
            server_name=host,
            server_port=port,
            share=is_shared,
            inbrowser=opens_browser,
            prevent_thread_lock=True,
            quiet=True,
            max_file_size=MAX_BYTES,
            enable_monitoring=False,
            footer_links=[],
            theme=THEME,
            css_paths=[CSS, MAPS_CSS],
            js=SCRIPT.read_text(encoding="utf-8"),
            app_kwargs={"middleware": [Middleware(Guard, hosts=lambda: [host, urlsplit(self.blocks.share_url or "").netloc])]},
        )
        return share_url or local_url
