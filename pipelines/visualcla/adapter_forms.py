"""An adapter of a whole VisualCLA model in the forms that other code opens.

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

from ..checkpoints.adapters import Adapter
from ..checkpoints.merging import AdapterForm
from ..checkpoints.offsets import StoredTensor
from ..checkpoints.structure import read_config
from ..tokenization import ALL_FILES
from .configuration_visualcla import VisualCLAConfig
from .layouts import release_name
from .original_tokenizer import original_tokenizer_files

_PEFT_03_FIELDS = ("bias", "fan_in_fan_out", "inference_mode", "lora_alpha", "lora_dropout", "peft_type", "r", "task_type")
_NOT_IN_PEFT_03 = ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora")


def release(adapter: Adapter) -> AdapterForm:
    """The form `release`.

    Raises:
        ValueError: it has no vision model's parts, or peft 0.3 does not know what it uses.
    """
    _check(adapter)
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
    return AdapterForm({"adapter_model.bin": tensors}, files)


def split(adapter: Adapter) -> AdapterForm:
    """The form `split`.

    Raises:
        ValueError: it has no vision model's parts.
    """
    _check(adapter)
    name = adapter.folder.absolute().name
    text_folder, vision_folder = f"{name}_text_lora_model_tgwebui", f"{name}_vision_lora_model_tgwebui"
    tensors = _tensors(adapter)
    text = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items() if key.startswith("text_model.")}
    vision = {key: tensor for key, tensor in tensors.items() if key.startswith("vision_model.")}
    weights = {
        f"{text_folder}/adapter_model.bin": _prefixed(text),
        f"{vision_folder}/adapter_model.bin": _prefixed(vision),
        **{
            f"{vision_folder}/{part}_model.bin": _whole(adapter, part)
            for part in ("image_projection_layer", "visual_resampler")
        },
    }
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
    for small in ("config.json", "preprocessor_config.json", *ALL_FILES):
        if (adapter.folder / small).is_file():
            content = (adapter.folder / small).read_bytes()
            files |= {f"{folder}/{small}": content for folder in (text_folder, vision_folder)}
    return AdapterForm(weights, files)


def _check(adapter: Adapter) -> None:
    missing = [part for part in ("visual_resampler", "image_projection_layer") if not _whole(adapter, part)]
    if missing:
        raise ValueError(
            f"{str(adapter.folder)!r} has no {missing}: it is no adapter of a whole VisualCLA model, so it has no eyes to convert. "
            "A LoRA of a language model alone opens in the web UI as it is."
        )


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


def _tensors(adapter: Adapter) -> dict[str, StoredTensor]:
    lora = {
        f"{module}.{part}" + ("" if "embedding" in part else ".weight"): tensor
        for module, layer in adapter.lora.items()
        for part, tensor in layer.parts.items()
    }
    return lora | adapter.whole


def _whole(adapter: Adapter, part: str) -> dict[str, StoredTensor]:
    start = f"{part}."
    return {name.removeprefix(start): tensor for name, tensor in adapter.whole.items() if name.startswith(start)}


def _prefixed(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


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
