"""An adapter of a whole VisualCLA model into the forms that other code opens.

| form      | folder                                                                                                    |
| --------- | --------------------------------------------------------------------------------------------------------- |
| `release` | as VisualCLA was released: opens with the original code (peft 0.3) over its two base models                 |
| `split`   | two folders, as the original's convert_ckpt_for_tgwebui.py made them: the text half is a LoRA for the web UI |

Source: Visual-Chinese-LLaMA-Alpaca, scripts/inference/text_generation_webui/convert_ckpt_for_tgwebui.py, commit 6f93ced,
Apache-2.0: file names and keys.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch

from pipelines.checkpoints.adapters import Adapter
from pipelines.checkpoints.structure import read_config
from pipelines.visualcla import VisualCLAConfig
from pipelines.visualcla.adapter import load_adapter
from pipelines.visualcla.layouts import release_name

from .folder import TOKENIZER_FILES
from .input_hashes import InputHashes
from .original_tokenizer import original_tokenizer_files
from .output_folder import OutputFolder
from .products import Product
from .shards import Shard
from .write import recipe_hash, write_weights

FORMS = ("release", "split")

_PEFT_03_FIELDS = ("bias", "fan_in_fan_out", "inference_mode", "lora_alpha", "lora_dropout", "peft_type", "r", "task_type")
_NOT_IN_PEFT_03 = ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora")


def convert_adapter(source: Path, target: Path, form: str, dtype: torch.dtype | None, force: bool) -> None:
    """Write an adapter in another form.

    Args:
        source: the adapter, of a whole VisualCLA model.
        target: the folder to make; for `split` it holds the two.
        form: "release" or "split".
        dtype: of the tensors; None keeps theirs.
        force: replace what is there.

    Raises:
        FileNotFoundError, ValueError, OSError: `source` is no such adapter, or cannot have this form; see `OutputFolder`.
    """
    adapter = load_adapter(source)
    _check(adapter)
    shards, files = (_release if form == "release" else _split)(adapter, dtype)
    with OutputFolder(target, recipe_hash(shards), [source], force) as output:
        write_weights(shards, output, InputHashes())
        for path, content in files.items():
            output.write(path, content)
        output.publish()


def _check(adapter: Adapter) -> None:
    missing = [part for part in ("visual_resampler", "image_projection_layer") if not _whole(adapter, part)]
    if missing:
        raise ValueError(
            f"{str(adapter.folder)!r} has no {missing}: it is no adapter of a whole VisualCLA model, so it has no eyes to convert. "
            "A LoRA of a language model alone opens in the web UI as it is."
        )


def _release(adapter: Adapter, dtype: torch.dtype | None) -> tuple[list[Shard], dict[str, bytes]]:
    if options := [option for option in _NOT_IN_PEFT_03 if adapter.config.get(option)]:
        raise ValueError(
            f"{str(adapter.folder)!r} uses {options}, which the original code's peft 0.3 does not know: a release cannot hold it. "
            "Merge it and write --layout original."
        )
    tensors = {f"base_model.model.{release_name(name)}": tensor for name, tensor in _tensors(adapter).items()}
    modules = sorted({name.split(".")[0] for name in adapter.whole if not name.startswith("text_model.")})
    modules += sorted({name.split(".")[-2] for name in adapter.whole if name.startswith("text_model.")})
    config = {key: adapter.config.get(key) for key in _PEFT_03_FIELDS if key in adapter.config}
    config |= {"base_model_name_or_path": None, "modules_to_save": modules}
    config["target_modules"] = release_pattern(list(adapter.lora))
    files = {
        "adapter_config.json": _json(config),
        "config.json": _json(_explicit_config(adapter.folder)),
        "preprocessor_config.json": (adapter.folder / "preprocessor_config.json").read_bytes(),
        **original_tokenizer_files(adapter.folder),
    }
    return [_shard("adapter_model.bin", tensors, dtype)], files


def _split(adapter: Adapter, dtype: torch.dtype | None) -> tuple[list[Shard], dict[str, bytes]]:
    name = adapter.folder.absolute().name
    text_folder, vision_folder = f"{name}_text_lora_model_tgwebui", f"{name}_vision_lora_model_tgwebui"
    tensors = _tensors(adapter)
    text = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items() if key.startswith("text_model.")}
    vision = {key: tensor for key, tensor in tensors.items() if key.startswith("vision_model.")}
    shards = [
        _shard(f"{text_folder}/adapter_model.bin", _prefixed(text), dtype),
        _shard(f"{vision_folder}/adapter_model.bin", _prefixed(vision), dtype),
        *(
            _shard(f"{vision_folder}/{part}_model.bin", _whole(adapter, part), dtype)
            for part in ("image_projection_layer", "visual_resampler")
        ),
    ]
    config = {key: value for key, value in adapter.config.items() if key not in ("enable_lora", "merge_weights")}
    config |= {"base_model_name_or_path": None}
    text_modules = [module.removeprefix("text_model.") for module in adapter.lora if module.startswith("text_model.")]
    text_config = config | {
        "modules_to_save": sorted({key.split(".")[-2] for key in text if ".lora_" not in key}) or None,
        "target_modules": target_pattern(text_modules),
    }
    vision_config = config | {"target_modules": target_pattern([m for m in adapter.lora if m.startswith("vision_model.")])}
    resampler_config = _explicit_config(adapter.folder)["visual_resampler_config"]
    files = {
        f"{text_folder}/adapter_config.json": _json(text_config),
        f"{vision_folder}/adapter_config.json": _json(vision_config),
        f"{vision_folder}/visual_resampler_config.json": _json(resampler_config),
    }
    for small in ("config.json", "preprocessor_config.json", *TOKENIZER_FILES):
        if (adapter.folder / small).is_file():
            content = (adapter.folder / small).read_bytes()
            files |= {f"{folder}/{small}": content for folder in (text_folder, vision_folder)}
    return shards, files


def target_pattern(modules: list[str]) -> str:
    """A regular expression that fits exactly these module names, layers gathered.

    >>> target_pattern(["layers.0.mlp.up", "layers.1.mlp.up", "head"])
    'head|layers\\\\.(0|1)\\\\.mlp\\\\.up'
    """
    layers: dict[tuple[str, str], list[str]] = {}
    for module in modules:
        match = re.fullmatch(r"(.*?\.)(\d+)(\..*)", module)
        before, number, after = match.groups() if match else (module, "", "")
        layers.setdefault((before, after), []).append(number)
    by_layers: dict[tuple[str, str], list[str]] = {}
    for (before, after), numbers in layers.items():
        by_layers.setdefault((before, "|".join(sorted(numbers, key=lambda n: int(n or 0)))), []).append(after)
    alternatives = []
    for (before, numbers), ends in by_layers.items():
        tail = "|".join(sorted(map(re.escape, ends)))
        alternatives.append(re.escape(before) + (f"({numbers})" if numbers else "") + (f"({tail})" if len(ends) > 1 else tail))
    return "|".join(sorted(alternatives))


def release_pattern(modules: list[str]) -> str:
    """A regular expression that fits these modules as the original's code calls them, and as today's models do.

    >>> release_pattern(["vision_model.encoder.layers.0.mlp.fc1", "text_model.lm_head"])
    '(model\\.)?(vision_model\\.)?(vision_model\\.encoder\\.layers\\.(0)\\.mlp\\.fc1)|(text_model\\.)?(lm_head)'
    """
    vision = [module for module in modules if not module.startswith("text_model.")]
    inner = [module for module in modules if module.startswith("text_model.model.")]
    rest = [module for module in modules if module.startswith("text_model.") and module not in inner]
    groups = (
        (r"(model\.)?(vision_model\.)?", vision),
        (r"(model\.)?text_model\.(model\.)?", [module.removeprefix("text_model.model.") for module in inner]),
        (r"(text_model\.)?", [module.removeprefix("text_model.") for module in rest]),
    )
    return "|".join(f"{prefix}({target_pattern(group)})" for prefix, group in groups if group)


def _tensors(adapter: Adapter) -> dict[str, Any]:
    lora = {
        f"{module}.{part}" + ("" if "embedding" in part else ".weight"): tensor
        for module, layer in adapter.lora.items()
        for part, tensor in layer.parts.items()
    }
    return lora | adapter.whole


def _whole(adapter: Adapter, part: str) -> dict[str, Any]:
    start = f"{part}."
    return {name.removeprefix(start): tensor for name, tensor in adapter.whole.items() if name.startswith(start)}


def _prefixed(tensors: dict[str, Any]) -> dict[str, Any]:
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def _shard(path: str, tensors: dict[str, Any], dtype: torch.dtype | None) -> Shard:
    return Shard(path, {name: Product(tensor, dtype or tensor.dtype) for name, tensor in tensors.items()})


def _explicit_config(folder: Path) -> dict[str, Any]:
    """The configuration with every value written that the original code has no default for."""
    values = read_config(folder)
    config = VisualCLAConfig.from_dict(values)
    resampler = config.visual_resampler_config
    names = type(resampler).__annotations__
    return values | {
        "model_type": "visualcla",
        "use_visual_resampler": config.use_visual_resampler,
        "visual_resampler_config": {name: getattr(resampler, name) for name in names if hasattr(resampler, name)},
    }


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
