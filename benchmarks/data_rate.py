"""How many rows and pictures a second one core reads from shards: ours beside a plain loop of the same loader.

    python benchmarks/data_rate.py --json

Plain: torchdata's StatefulDataLoader over WebDataset shards by `tarfile`, pictures decoded by Pillow, no shuffle, no position. Ours:
the same loader over `ShardStream`, with shuffle buffer, checks, safe decoding and exact position; and that with the collator of a model
behind it (templates, tokens, labels, pixels).
"""

import argparse
import io
import json
import os
import platform
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from pipelines.own_python import hand_over

if __name__ == "__main__":
    hand_over(__file__)

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from pipelines.images import load_image
from training.data.collator import ConversationCollator
from training.data.processor import load_processor
from training.data.streaming import ShardStream, stateful_loader

BATCH = 16


class PlainShards(IterableDataset):
    def __init__(self, shards: list[Path]):
        self.shards = shards

    def __iter__(self) -> Iterator[tuple[Image.Image, str]]:
        for shard in self.shards:
            with tarfile.open(shard) as archive:
                picture = None
                for member in archive:
                    data = archive.extractfile(member).read()
                    if member.name.endswith(".jpg"):
                        picture = Image.open(io.BytesIO(data)).convert("RGB")
                    else:
                        yield picture, data.decode()


def write_shards(folder: Path, num_shards: int, samples: int, side_px: int) -> list[Path]:
    """Shards of photo-like JPEGs (smooth noise) of about the size that img2dataset writes, with captions."""
    rng = np.random.default_rng(0)
    paths = []
    for shard in range(num_shards):
        paths.append(folder / f"{shard:05d}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            for number in range(samples):
                small = Image.fromarray(rng.integers(0, 255, (side_px // 8, side_px // 8, 3), dtype=np.uint8))
                file = io.BytesIO()
                small.resize((side_px, side_px), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
                for ending, data in (
                    ("jpg", file.getvalue()),
                    ("txt", b"a caption of the length that captions on the web have"),
                ):
                    info = tarfile.TarInfo(f"{shard:05d}{number:05d}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return paths


def rate(loader: Iterable, count: int) -> float:
    """Rows a second of processor time in this process, start included; every batch is of `BATCH` rows."""
    begun, rows = time.process_time(), 0
    for _ in loader:
        rows += BATCH
        if rows >= count:
            break
    return rows / (time.process_time() - begun)


def decoded(rows: list[dict]) -> list:
    return [(load_image(row["images"][0]), row["messages"]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=640, help="rows of each measurement")
    parser.add_argument("--side_px", type=int, default=256)
    parser.add_argument("--model", default="demo/model", help="whose processor the collator uses")
    parser.add_argument("--model_side_px", type=int, help="side of the pictures that the model sees (default: its own)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(Path(folder), 4, -(-arguments.rows // 4), arguments.side_px)
        size = sum(shard.stat().st_size for shard in shards) / (4 * -(-arguments.rows // 4))
        processor = load_processor(arguments.model)
        if arguments.model_side_px:
            processor.image_processor.size = {"height": arguments.model_side_px, "width": arguments.model_side_px}
        collator = ConversationCollator(processor)
        loops: dict[str, Callable[[], Iterable]] = {
            "plain": lambda: stateful_loader(PlainShards(shards), batch_size=BATCH, collate_fn=list),
            "ours": lambda: stateful_loader(ShardStream(shards, 0, 200), batch_size=BATCH, collate_fn=decoded),
            "ours_read_only": lambda: stateful_loader(ShardStream(shards, 0, 200), batch_size=BATCH, collate_fn=list),
            "ours_collated": lambda: stateful_loader(ShardStream(shards, 0, 200), batch_size=BATCH, collate_fn=collator),
        }
        rows = {name: round(max(rate(make(), arguments.rows) for _ in range(2)), 1) for name, make in loops.items()}
    result = {
        "rows_per_core_second": rows,
        "pictures_per_core_second": rows,
        "bytes_per_row": round(size),
        "side_px": arguments.side_px,
        "model": arguments.model,
        "model_side_px": arguments.model_side_px,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}",
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in rows.items():
            print(f"{name:16} {value:8.1f} rows (and pictures) a second and core")


if __name__ == "__main__":
    main()
