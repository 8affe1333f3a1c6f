"""Language models in forms that nothing opens, made ordinary folders: deltas (Vicuna, LLaVA), and Meta's own files of LLaMA."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from pipelines.checkpoints.formats import refuse_foreign
from pipelines.checkpoints.meta_llama import config_of, name_of, read_params, tensor_of
from pipelines.composite.tensors import check_finite, new_folder, stored_tensors, write_safetensors

TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


def apply_delta(
    base: Path, delta: Path, output_dir: Path, dtype: torch.dtype | None, max_shard_bytes: int, force: bool = False
) -> None:
    """Add a delta to the language model it was made from, in fp32, tensor by tensor.

    Rows of new tokens are those of the delta alone where it brings a projector (LLaVA), else over the mean of the base's rows
    (Vicuna v0, whose one new token is `[PAD]`), as the originals' scripts have it. What the base has no tensor for is kept.

    Args:
        base: the language model in transformers' form.
        delta: weights minus the base's, under ordinary names.

    Raises:
        FileNotFoundError, ValueError: files are missing, or the two do not belong together.
    """
    refuse_foreign(base, "merge")
    weights, changes = stored_tensors(base), stored_tensors(delta)
    if lost := [name for name in weights if name not in changes]:
        raise ValueError(f"{str(delta)!r} is no delta of {str(base)!r}: it lacks {len(lost)} of its tensors: {lost[:3]}.")
    extra = [name for name in changes if name not in weights]
    if any("layers." in name for name in extra):
        raise ValueError(f"{str(delta)!r} is a delta of a larger model than {str(base)!r}: it has {extra[0]}.")
    for name, change in changes.items():
        fits = name in extra or change.shape == weights[name].shape
        if not fits and not (
            name in EMBEDDINGS and len(change) > len(weights[name]) and change.shape[1] == weights[name].shape[1]
        ):
            raise ValueError(
                f"{str(delta)!r} is no delta of {str(base)!r}: {name} is {tuple(change.shape)}, there {tuple(weights[name].shape)}."
            )

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, change in changes.items():
            total = change.float()
            if name in weights:
                weight = weights[name].float()
                total[: len(weight)] += weight
                if not extra:
                    total[len(weight) :] += weight.mean(dim=0)
            yield name, total.to(dtype or change.dtype)

    with new_folder(output_dir, force) as folder:
        _write(tensors(), folder, str(delta), max_shard_bytes)
        for source in (base, delta):  # the delta's files count
            for name in ("config.json", "generation_config.json", *TOKENIZER_FILES):
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)


def convert_meta_llama(
    source: Path, output_dir: Path, dtype: torch.dtype | None, max_shard_bytes: int, force: bool = False
) -> None:
    """Write Meta's LLaMA as transformers opens it.

    Args:
        source: folder of `params.json` and `consolidated.*.pth`; `tokenizer.model` lies there or one folder above.

    Raises:
        FileNotFoundError, ValueError: files are missing or of different models.
    """
    params = read_params(source)
    shards = [stored_tensors(file) for file in sorted(source.glob("consolidated.*.pth"))]
    tokenizer = next((file for place in (source, source.parent) if (file := place / "tokenizer.model").is_file()), None)
    if tokenizer is None:
        raise FileNotFoundError(f"'tokenizer.model' is neither in {str(source)!r} nor above it. Copy it there.")
    names = list(shards[0])
    if any(shard.keys() != shards[0].keys() for shard in shards):
        raise ValueError(
            f"The files consolidated.*.pth of {str(source)!r} hold different tensors: they belong to different models."
        )
    num_layers = 1 + max(int(name.split(".")[1]) for name in names if name.startswith("layers."))
    if num_layers != params["n_layers"] or shards[0]["norm.weight"].shape[0] != params["dim"]:
        raise ValueError(
            f"{str(source)!r}: params.json says {params['n_layers']} layers of width {params['dim']}, the weights have {num_layers} of "
            f"width {shards[0]['norm.weight'].shape[0]}. Is a file missing?"
        )

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for published in names:
            if (name := name_of(published)) is not None:
                tensor = tensor_of(published, [shard[published] for shard in shards], params)
                yield name, tensor.to(dtype or tensor.dtype)

    width = sum(shard["tok_embeddings.weight"].shape[1] for shard in shards)
    if width != params["dim"]:
        raise ValueError(
            f"{str(source)!r}: the files give a width of {width}, params.json says {params['dim']}. Is a file missing?"
        )
    feed_forward = sum(shard["layers.0.feed_forward.w1.weight"].shape[0] for shard in shards)
    config = config_of(params, shards[0]["tok_embeddings.weight"].shape[0], feed_forward)
    with new_folder(output_dir, force) as folder:
        _write(tensors(), folder, str(source), max_shard_bytes)
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        shutil.copyfile(tokenizer, folder / "tokenizer.model")
        settings = {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "model_max_length": 2048,
        }
        roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | roles, indent=2), encoding="utf-8")


def _write(tensors: Iterator[tuple[str, torch.Tensor]], folder: Path, source: str, max_shard_bytes: int) -> None:
    def checked() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in tensors:
            check_finite({name: tensor}, source)
            yield name, tensor

    write_safetensors(checked(), folder, max_shard_bytes)
