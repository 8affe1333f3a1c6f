"""How many requests and tokens per second come back at 1, 8 and 32 at once: our own page's queue, and a server.

    python benchmarks/serving.py --model demo/model [--json]
    VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/serving.py --model demo/model [--json]
    python benchmarks/serving.py --model visualcla-7b --server http://gpu-box:8000/v1 --ways server [--json]

Every request is a new conversation about a picture of its own, so nothing is answered from a cache; answers are greedy. The page's
queue is what the page does: one model, one answer at a time, everybody else waits. With VLLM_PYTHON a vLLM with this checkout's plugin
is started on the same folder; both ways get the same number of threads and the same precision, and never run at the same time.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "serving")]

from pipelines.own_python import hand_over  # noqa: E402

if __name__ == "__main__":
    hand_over(__file__)

from PIL import Image, ImageDraw  # noqa: E402

AT_ONCE = (1, 8, 32)
QUESTION = "Describe the picture."
COLOURS = ("red", "green", "blue", "yellow", "black")

Ask = Callable[[Image.Image], int]
"""A picture to the number of tokens of its answer."""


def picture(seed: int, side_px: int) -> Image.Image:
    """Shapes on white, of a seed."""
    chance = random.Random(seed)
    image = Image.new("RGB", (side_px, side_px), "white")
    draw = ImageDraw.Draw(image)
    cells = chance.sample([(x, y) for x in (0.27, 0.73) for y in (0.27, 0.73)], chance.randint(2, 4))
    for x, y in cells:
        radius, centre = side_px * chance.uniform(0.1, 0.16), (side_px * x, side_px * y)
        box = [*(place - radius for place in centre), *(place + radius for place in centre)]
        (draw.ellipse if chance.random() < 0.5 else draw.rectangle)(box, fill=chance.choice(COLOURS))
    return image


def load(ask: Ask, at_once: int, pictures: list[Image.Image]) -> dict:
    """Keep `at_once` requests in flight until every picture was asked about."""
    seconds = []

    def one(image: Image.Image) -> int:
        start = time.perf_counter()
        tokens = ask(image)
        seconds.append(time.perf_counter() - start)
        return tokens

    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        tokens = sum(pool.map(one, pictures))
    wall_s = time.perf_counter() - start
    ordered = sorted(seconds)
    return {
        "at_once": at_once,
        "requests": len(pictures),
        "tokens": tokens,
        "requests_per_s": len(pictures) / wall_s,
        "tokens_per_s": tokens / wall_s,
        "median_s": statistics.median(ordered),
        "p95_s": ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))],
    }


def queue(folder: str, max_new_tokens: int) -> Ask:
    """The page's way: a model in this process, one answer at a time."""
    import torch
    from transformers import GenerationConfig

    from pipelines import load_model
    from pipelines.base import ImagePart
    from pipelines.generation import ChatModel, message

    has_gpu = torch.cuda.is_available()
    dtype = torch.float16 if has_gpu else torch.float32
    chat = ChatModel(*load_model(folder, dtype=dtype, device_map="auto" if has_gpu else None))
    config, turns = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens), ThreadPoolExecutor(1)

    def answer(image: Image.Image) -> int:
        prepared = chat.prepare([message("user", QUESTION, 1)], [ImagePart.of(image)], max_new_tokens)
        return max(len(ids) for ids in chat.stream_ids(prepared, config))

    return lambda image: turns.submit(answer, image).result()


def server(url: str, model: str | None, max_new_tokens: int) -> Ask:
    """An OpenAI-compatible server's way; its own count of tokens."""
    from vllm_server import picture_item, post

    if model is None:
        from demo.server import ServerChat

        model = ServerChat(url).model

    def ask(image: Image.Image) -> int:
        content = [picture_item(image), {"type": "text", "text": QUESTION}]
        body = {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        status, reply = post(url, "/chat/completions", body)
        if status != 200:
            raise RuntimeError(f"{url} refused ({status}): {reply}")
        return reply["usage"]["completion_tokens"]

    return ask


def measure(ask: Ask, args: argparse.Namespace, way: str) -> list[dict]:
    """Each number at once, after some requests that do not count."""
    seeds = iter(range(10**6))

    def pictures(count: int) -> list[Image.Image]:
        return [picture(next(seeds), args.side_px) for _ in range(count)]

    load(ask, min(8, max(args.at_once)), pictures(args.requests // 2))
    found = []
    for at_once in args.at_once:
        found.append({"way": way, **load(ask, at_once, pictures(max(args.requests, 2 * at_once)))})
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo/model", help="model folder (default: %(default)s)")
    parser.add_argument("--server", metavar="URL", help="a server that runs already, of the same model")
    parser.add_argument("--server_model", metavar="NAME", help="which of its models")
    parser.add_argument(
        "--ways", nargs="+", choices=["queue", "server"], default=["queue", "server"], help="what is measured, in this order"
    )
    parser.add_argument("--at_once", nargs="+", type=int, default=list(AT_ONCE), help="requests in flight (default: 1 8 32)")
    parser.add_argument("--requests", type=int, default=64, help="of each measurement (default: %(default)s)")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="longest answer (default: %(default)s)")
    parser.add_argument("--side_px", type=int, default=192, help="of the pictures (default: %(default)s)")
    parser.add_argument("--vllm_flags", default="", help="further flags of the vLLM that is started, as one text")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    from vllm_server import PYTHON, serving

    found = []
    for way in args.ways:
        if way == "queue":
            found += measure(queue(args.model, args.max_new_tokens), args, "queue")
        elif args.server is not None:
            found += measure(server(args.server, args.server_model, args.max_new_tokens), args, "server")
        elif PYTHON is not None:
            folder = Path(args.model).resolve()
            with tempfile.TemporaryDirectory() as tmp, serving(folder, Path(tmp), *args.vllm_flags.split()) as url:
                found += measure(server(url, None, args.max_new_tokens), args, "vllm")
        else:
            print("benchmarks/serving.py: no server: give --server URL, or VLLM_PYTHON.", file=sys.stderr)
            return 2
    threads = os.environ.get("OMP_NUM_THREADS") or "one per core"
    result = {"model": Path(args.model).name, "cores": os.cpu_count(), "threads": threads, "measured": found}
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{result['model']}, {result['cores']} cores, threads: {threads}")
    print("way     at once  requests/s  tokens/s  median s   p95 s")
    for row in found:
        numbers = f"{row['at_once']:7}  {row['requests_per_s']:10.2f}  {row['tokens_per_s']:8.1f}"
        print(f"{row['way']:7} {numbers}  {row['median_s']:8.2f}  {row['p95_s']:6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
