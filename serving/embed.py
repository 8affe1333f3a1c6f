"""`python -m serving embed`: messages with pictures to prompt embeddings, for an engine that has the language model alone.

    python -m serving embed --model FOLDER --image photo.jpg "What is this?"     # the embeddings, for one request
    python -m serving embed --model FOLDER --port 9000                           # a process that gives them to whoever asks

A stock `vllm serve FOLDER --enable-prompt-embeds` takes what is given here as part of a request to `/v1/completions`. Only the vision
model and the language model's table of embeddings are loaded; nothing is kept of a request but the features of its pictures.
"""

import base64
import io
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipelines.command_line import Parser, one_line

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 128 * 2**20


def main(argv: list[str] | None = None) -> int:
    """Run the command; 2 for a mistake of the user's."""
    parser = Parser(
        "python -m serving embed",
        description="Messages with pictures to prompt embeddings, for vllm serve --enable-prompt-embeds.",
    )
    parser.add_argument("question", nargs="?", help="embed this one, and print the fields of a request to /v1/completions")
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a whole model: webui or transformers layout")
    parser.add_argument("--image", dest="images", action="append", default=[], metavar="FILE", help="a picture; once for each")
    parser.add_argument(
        "--dtype", choices=["auto", "float32", "float16", "bfloat16"], default="auto", help="of the vision model"
    )
    parser.add_argument("--device", default="cpu", help="where pictures are encoded (default: %(default)s)")
    parser.add_argument("--port", type=int, metavar="N", help="listen there: POST /embed takes the body of a chat request")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    args = parser.parse_args(argv)
    if (args.question is None) == (args.port is None):
        parser.error("give a question, or --port to listen on: one of the two")
    if args.port is not None and (args.images or not 0 <= args.port < 65536):
        parser.error(f"--port {args.port}: a port is a number up to 65535, and pictures come with the requests")
    try:
        from pipelines.images import load_image

        images = [load_image(image, background="white") for image in args.images]
        embedder = PromptEmbedder(args.model, args.device, None if args.dtype == "auto" else args.dtype)
        if args.question is not None:
            from pipelines.generation import message

            print(json.dumps(embedder.request_fields([message("user", args.question, len(images))], images)))
            return 0
        server = make_server(embedder, args.host, args.port)
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        print(f"python -m serving embed: {one_line(error)}", file=sys.stderr)
        return 2
    print(
        f"Prompt embeddings of {Path(args.model).name}: POST http://{args.host}:{server.server_port}/embed (Ctrl-C stops it)",
        flush=True,
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


class PromptEmbedder:
    """The vision model and the embeddings of a model folder. Safe to use from several threads.

    Args:
        folder: a whole model of a family whose pictures are embeddings in the prompt.
        device: where pictures are encoded.
        dtype: of the vision model; as stored when absent.

    Raises:
        FileNotFoundError, ValueError: see `pipelines.registry.load_prompt_side`; or the language model scales its embeddings, which an
            engine then would not.
    """

    def __init__(self, folder: str | Path, device: str = "cpu", dtype: str | None = None):
        import torch
        from torch import nn

        from pipelines.checkpoints.structure import empty_model
        from pipelines.generation import ChatModel
        from pipelines.registry import load_pipeline, load_prompt_side

        side = load_prompt_side(folder)
        text = side.config.text_config
        kind = type(empty_model(text, text.num_hidden_layers, Path(folder)).get_input_embeddings())
        if kind is not nn.Embedding:
            raise ValueError(
                f"The language model of {str(folder)!r} makes its embeddings by {kind.__name__}, not by a table alone. Serve the folder by "
                "vLLM's plugin instead: pip install '.[vllm]'"
            )
        dtype = None if dtype is None else getattr(torch, dtype)
        pipeline = load_pipeline(folder, device=device, dtype=dtype)
        self.chat = ChatModel(_table(text, side.read_embeddings()), side.processor, pipeline)

    def embed(self, messages: Sequence[Mapping[str, Any]], images: Sequence[Any], max_new_tokens: int = 0):
        """(T, Dt): the whole prompt of a conversation, in the dtype of the stored embeddings.

        Args:
            messages: as `pipelines.generation.ChatModel` takes them.
            images: the pictures (PIL) in the order of the image items.
            max_new_tokens: room to leave for the answer; a full context loses its oldest turns.

        Raises:
            ValueError: a picture cannot be used, or the newest turn does not fit.
        """
        import torch

        from pipelines.base import ImagePart

        with torch.inference_mode():
            prompt = self.chat.prepare(messages, [ImagePart.of(image) for image in images], max_new_tokens).prompt
            if "inputs_embeds" in prompt.inputs:
                return prompt.inputs["inputs_embeds"][0]
            return self.chat.model.get_input_embeddings()(prompt.input_ids)[0]

    def request_fields(
        self, messages: Sequence[Mapping[str, Any]], images: Sequence[Any], max_new_tokens: int = 0
    ) -> dict[str, Any]:
        """Fields of a request to `/v1/completions`: `prompt_embeds`, and `stop` where the family ends its answers by a text."""
        import torch

        file = io.BytesIO()
        torch.save(self.embed(messages, images, max_new_tokens).cpu().clone(), file)
        stop = list(self.chat.pipeline.stop_strings)
        return {"prompt_embeds": base64.b64encode(file.getvalue()).decode(), **({"stop": stop} if stop else {})}

    def answer_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `request_fields`, of the body of a chat request: `messages` with pictures as data URIs, `max_tokens`.

        Raises:
            ValueError: the body is no such request, or cannot be embedded.
        """
        messages, images = read_messages(body.get("messages"))
        room = body.get("max_tokens") or 0
        if not isinstance(room, int):
            raise ValueError(f"max_tokens is {room!r}; it is a number of tokens.")
        return self.request_fields(messages, images, room)


def read_messages(given: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """Messages of the OpenAI API to those of `ChatModel`, and their pictures.

    Raises:
        ValueError: they are none, or hold something else than texts and pictures as data URIs.
    """
    from pipelines.images import load_image

    if not isinstance(given, list) or not given:
        raise ValueError("The request has no messages: [{'role': 'user', 'content': ...}].")
    messages, images = [], []
    for entry in given:
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(content, str | list) or not isinstance(entry.get("role"), str):
            raise ValueError(
                f"A message is {json.dumps(entry)[:100]}; it has a role, and a text or a list of parts as content."
            )
        parts: list[dict[str, Any]] = []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                parts.append({"type": "text", "text": part["text"]})
            elif (
                kind == "image_url"
                and isinstance(url := (part.get("image_url") or {}).get("url"), str)
                and url.startswith("data:")
            ):
                images.append(load_image(url, background="white"))
                parts.append({"type": "image"})
            else:
                raise ValueError(
                    f"A part is {json.dumps(part)[:100]}; taken are texts, and pictures as image_url with a data: URI."
                )
        messages.append({"role": entry["role"], "content": parts})
    return messages, images


def make_server(embedder: PromptEmbedder, host: str, port: int) -> ThreadingHTTPServer:
    """POST /embed: the body of a chat request to the fields of a completion request. GET /health.

    Raises:
        OSError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(*((200, {"status": "ok"}) if self.path == "/health" else (404, _error("GET /health, POST /embed"))))

        def do_POST(self):
            length = self.headers.get("Content-Length", "")
            if self.path != "/embed" or not length.isdecimal() or int(length) > MAX_REQUEST_BYTES:
                self.close_connection = True
                self._send(404 if self.path != "/embed" else 413, _error(f"POST /embed, at most {MAX_REQUEST_BYTES} bytes"))
                return
            try:
                body = json.loads(self.rfile.read(int(length)))
                if not isinstance(body, dict):
                    raise ValueError("The body is no JSON object.")
                self._send(200, embedder.answer_request(body))
            except (ValueError, RecursionError) as error:
                self._send(400, _error(one_line(error)))
            except Exception:
                logger.exception("No embeddings.")
                self._send(500, _error("This process failed; its log says why."))

        def _send(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    return ThreadingHTTPServer((host, port), Handler)


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


def _table(config: Any, weight: Any) -> Any:
    """Stands for a language model of which nothing but the input embeddings is needed."""
    from torch import nn

    table = nn.Module()
    table.config, table.embeddings = config, nn.Embedding.from_pretrained(weight)
    table.get_input_embeddings = lambda: table.embeddings
    return table
