"""Mutated checkpoints: each is read as the library reads it, or refused in a sentence, within its memory and its time.

A thousand by default; `pytest tests/families/test_family_fuzz.py --fuzz 10000` for more, `--fuzz-seed` for others.
"""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import native_models
import pytest
import torch
from checkpoint_limits import load_limited
from models import make_model
from mutations import mutate, mutate_json, mutate_safetensors, mutate_template, mutate_torch_zip
from safetensors.torch import save_file

from pipelines.visualcla import save_model

TENSORS = {
    "model.layers.0.q.weight": torch.arange(12.0).view(3, 4),
    "model.norm.weight": torch.ones(4, dtype=torch.bfloat16),
    "ids": torch.arange(5),
    "mask": torch.tensor([True, False]),
    "half": torch.linspace(-1, 1, 6).half().view(2, 3),
}
LORA = {f"base_model.model.model.layers.0.q.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
CONFIG = {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1, "tie_word_embeddings": False}
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"], "base_model_name_or_path": "base"}
LONG_PER_MILLE = 40
"""How many of a thousand are loaded and asked."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits of a process are Linux's")


def byte_wise(content: bytes, chance: random.Random) -> bytes:
    return mutate(content, content, chance)


Way = tuple[Path, str, Callable[[bytes, random.Random], bytes], str]


def ways(folder: Path) -> list[Way]:
    """(folder of a whole checkpoint, the file to mutate, how, what to do with it)."""
    made: list[Way] = []

    def seed(name: str, files: dict[str, Callable[[Path], object]], mutations: list[tuple], do: str = "read") -> None:
        place = folder / name
        place.mkdir()
        for file, write in files.items():
            write(place / file)
        made.extend((place, file, how, do) for file, how in mutations)

    def text(values: dict) -> Callable[[Path], object]:
        return lambda path: path.write_text(json.dumps(values))

    first, second = dict(list(TENSORS.items())[:2]), dict(list(TENSORS.items())[2:])
    index = {"weight_map": {**dict.fromkeys(first, "1.safetensors"), **dict.fromkeys(second, "2.safetensors")}}
    config = {"config.json": text(CONFIG)}
    safetensors = [("model.safetensors", byte_wise), ("model.safetensors", mutate_safetensors), ("config.json", mutate_json)]
    seed("safetensors", {**config, "model.safetensors": lambda path: save_file(TENSORS, path)}, safetensors)
    shards = {"1.safetensors": lambda path: save_file(first, path), "2.safetensors": lambda path: save_file(second, path)}
    seed(
        "shards",
        {**config, **shards, "model.safetensors.index.json": text(index)},
        [("model.safetensors.index.json", mutate_json)],
    )
    zipped = [("pytorch_model.bin", byte_wise), ("pytorch_model.bin", mutate_torch_zip)]
    seed("zip", {**config, "pytorch_model.bin": lambda path: torch.save(TENSORS, path)}, zipped)
    legacy = {"pytorch_model.bin": lambda path: torch.save(TENSORS, path, _use_new_zipfile_serialization=False)}
    seed("legacy", {**config, **legacy}, [("pytorch_model.bin", byte_wise)])
    foreign = {"model": TENSORS, "args": CaseSettings()}
    seed("foreign", {"pytorch_model.bin": lambda path: torch.save(foreign, path)}, zipped, "inert")
    lora = {"adapter_config.json": text(ADAPTER), "adapter_model.safetensors": lambda path: save_file(LORA, path)}
    mutations = [("adapter_config.json", mutate_json), ("adapter_model.safetensors", mutate_safetensors)]
    seed("adapter", lora, mutations, "adapter")

    save_model(model := make_model(), model.processor, folder / "webui")
    native_models.write("llava", folder / "native")
    for whole in (folder / "webui", folder / "native"):
        for file in sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*")):
            if file.endswith(".json"):
                made += [(whole, file, mutate_json, "ask")] * (5 if file.endswith("config.json") else 2)
                made.append((whole, file, byte_wise, "ask"))
            elif file.endswith(".jinja"):
                made += [(whole, file, mutate_template, "ask")] * 5
    return made


class CaseSettings:
    """Of a class that no reader knows."""

    def __init__(self) -> None:
        self.rate = 0.1


def test_mutated_checkpoints_are_read_right_or_refused_within_their_limits(request, tmp_path):
    number, chance = request.config.getoption("--fuzz"), random.Random(request.config.getoption("--fuzz-seed"))
    found_ways = ways(tmp_path)
    long, short = ([way for way in found_ways if (way[3] == "ask") == is_long] for is_long in (True, False))
    chosen = [chance.choice(long if chance.randrange(1000) < LONG_PER_MILLE else short) for _ in range(number)]
    mutated = [(str(folder), file, how((folder / file).read_bytes(), chance), do) for folder, file, how, do in chosen]
    whole = {folder: (str(folder), file, (folder / file).read_bytes(), do) for folder, file, _, do in found_ways}
    said = load_limited([*whole.values(), *mutated])
    assert not [one for one in said[: len(whole)] if not one.startswith("ok")]
    found = said[len(whole) :]
    wrong = [
        f"{index} {Path(case[0]).name}/{case[1]} ({case[3]}): {one}"
        for index, (case, one) in enumerate(zip(mutated, found, strict=True))
        if one.startswith("WRONG")
    ]
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong[:40])
    refused = sum(one.startswith("refused") for one in found)
    assert number // 10 < refused < number, f"{refused} of {number} refused: these mutations test nothing"
