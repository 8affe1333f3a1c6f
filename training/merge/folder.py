"""Which tensor goes into which file of a folder, and the small files beside them. The family says what only it knows.

| layout         | folder                                                                                               |
| -------------- | ---------------------------------------------------------------------------------------------------- |
| `webui`        | a language model at the root, the vision model in `vision/`: what the web UI's loaders open           |
| `transformers` | one composite checkpoint: what transformers' Auto classes open                                       |
| `original`     | what the family's original code opens                                                                 |

Their tables of names are in the family's `layouts.py`, by which they are read too.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from pipelines.checkpoints.layouts import NAMES as LAYOUTS
from pipelines.json_files import read_json
from pipelines.tokenization import ALL_FILES, load_tokenizer, plain_template

from .products import MergePlan, Product
from .shards import Shard, index_of, pack

Layout = Literal["webui", "transformers", "original"]

_AS_IT_IS = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that open `tokenizer.json` by its own rule; transformers builds others anew (`LlamaTokenizer`) and leaves it out."""


def plan_shards(plan: MergePlan, layout: Layout, max_shard_bytes: int, links: bool = False) -> list[Shard]:
    """Which weight files a model becomes.

    Args:
        plan: the model.
        layout: of the folder.
        max_shard_bytes: of tensors per file.
        links: link files of the inputs where they can stand as they are.

    Raises:
        ValueError: the model cannot be written in this layout.
    """
    if not plan.has_vision and layout != LAYOUTS[0]:
        raise ValueError(
            f"Layout {layout!r} is for models with eyes, and nothing brings any: give --vision_model and an adapter."
        )
    table, products = plan.family.layouts[layout], dict(plan.products)
    if plan.has_vision:
        shapes = {name: product.shape for name, product in products.items()}
        for name, value in plan.family.additions(plan.model, table, shapes).items():
            products[name] = products[value] if isinstance(value, str) else Product(value, value.dtype)
    by_folder: dict[str, dict[str, Product]] = {folder: {} for folder in table.folders}
    for name, product in products.items():
        place = table.place(name)
        by_folder[place.folder][place.name] = product
    shards = []
    for folder, found in by_folder.items():
        suffixes = table.suffixes[folder]
        can_link = links and ".safetensors" in suffixes
        if found:
            shards += pack(found, folder, ".safetensors" if can_link else suffixes[0], max_shard_bytes, can_link)
    return shards


def small_files(plan: MergePlan, layout: Layout, shards: list[Shard]) -> dict[str, bytes]:
    """Everything but weights and model card: path below the folder to content.

    Raises:
        FileNotFoundError: an image processor's settings are missing.
        ValueError: the model cannot be written in this layout.
    """
    table = plan.family.layouts[layout]
    text_folder = table.folder_of(plan.family.text)
    files = index_of(shards)
    files[f"{text_folder}/generation_config.json".removeprefix("/")] = _generation_config(plan)
    if layout == "webui":
        files["config.json"] = _json(plan.model.text_config)
    if layout != "original":
        files |= _tokenizer_files(plan.model.tokenizer_folder)
    template = plan.model.tokenizer_folder / "chat_template.jinja"
    if plan.has_vision:
        files |= plan.family.files(plan.model, table)
    elif template.is_file():
        files["chat_template.jinja"] = plain_template(template.read_text(encoding="utf-8")).encode()
    return files


def _generation_config(plan: MergePlan) -> bytes:
    file = plan.text.generation_folder / "generation_config.json"
    if file.is_file():
        return file.read_bytes()
    names, config = ("bos_token_id", "eos_token_id", "pad_token_id"), plan.model.text_config
    return _json({name: config[name] for name in names if config.get(name) is not None})


def _tokenizer_files(folder: Path) -> dict[str, bytes]:
    """The tokenizer as it is where it is right, rebuilt where there is only sentencepiece's model; without a chat template."""
    if (folder / "tokenizer.json").is_file():
        files = {name: (folder / name).read_bytes() for name in ALL_FILES if (folder / name).is_file()}
        settings = read_json(folder / "tokenizer_config.json")
        if settings and settings.get("tokenizer_class") not in _AS_IT_IS:
            settings.pop("auto_map", None)
            files["tokenizer_config.json"] = _json(settings | {"tokenizer_class": _AS_IT_IS[0]})
    else:
        with tempfile.TemporaryDirectory() as scratch:
            load_tokenizer(folder).save_pretrained(scratch)
            files = {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir()) if path.is_file()}
        files["tokenizer.model"] = (folder / "tokenizer.model").read_bytes()
    files.pop("chat_template.jinja", None)
    return files


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
