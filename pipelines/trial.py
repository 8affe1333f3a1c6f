"""Whether a model folder that looks whole would answer: its parts are tried without its weights.

The model is made on the meta device and compared with what its files hold, whose values are looked through once; tokenizer, chat template
and image processor are opened and used on a small picture, generation settings on a model of a few weights. What fails is a sentence for
the doctor. Needs PyTorch.
"""

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer

from .chat_template import apply_chat_template, check_chat_template
from .checkpoints.adapters import read_adapter
from .checkpoints.stored_tensors import stored_tensors, tensor_headers
from .checkpoints.structure import COMPUTED_BUFFERS, language_model, model_config, read_config
from .generation import message
from .json_files import read_json
from .registry import check_generation, load_prompt_side
from .tokenization import has_tokenizer, load_tokenizer

MAX_SIDE_PX = 4096
"""Of what an image processor makes; published ones stay below 2,000."""

MAX_BEAMS = 64
"""Of an answer, or answers at once."""

IMAGE_TOKENS = re.compile(r"(image|img|media|patch)\w*_(id|index)$")
"""Keys of a configuration that name tokens of a picture."""

MAX_ROWS = 300_000
"""Of a vocabulary; the largest known has 262,144."""

PHOTO_PX = (640, 480)
ASKED = "What is this? \u8fd9\u662f\u4ec0\u4e48\uff1f"


def faults(folder: Path, found: str | None) -> Iterator[str]:
    """What keeps a folder from answering, a sentence each.

    Args:
        folder: with weights and, of a known family, an image processor; nothing that its names tell is missing.
        found: its family; None for a language model by itself.
    """
    trials: list[Callable[[], object]] = [lambda: _try_generation(folder), lambda: _try_values(folder)]
    if found is None or (folder / "vision" / "config.json").is_file():
        trials.append(lambda: _try_language_model(folder))
    if found == "native":
        trials.append(lambda: _try_native(folder))
    elif found is not None:
        trials.append(lambda: _try_processor(folder, found))
    for trial in trials:
        try:
            trial()
        except Exception as error:  # odd values lead the libraries to any exception
            told = " ".join(str(error).split())[:400]
            yield told if isinstance(error, OSError | ValueError) else f"{str(folder)!r}: {type(error).__name__}: {told}"


def adapter_faults(folder: Path, found: str | None) -> Iterator[str]:
    """What keeps an adapter from being merged or loaded with any model, a sentence; families read those of their own by themselves."""
    try:
        if found is None:
            read_adapter(folder)
        _try_values(folder)
    except (OSError, ValueError) as error:
        yield " ".join(str(error).split())[:400]


def _try_language_model(folder: Path) -> None:
    values = read_config(folder)
    if values.get("quantization_config"):  # stored otherwise than the model is made
        return
    tensors = stored_tensors(folder)
    found = language_model(values, tensors, folder)
    config, rows = model_config(values, folder).get_text_config(), tensors[found.embedding].shape[0]
    if config.is_encoder_decoder:
        raise ValueError(
            f"{str(folder / 'config.json')!r} says is_encoder_decoder, which its weights are not. Copy the file again."
        )
    if config.vocab_size != rows:
        raise ValueError(
            f"{str(folder / 'config.json')!r} says vocab_size {config.vocab_size}, but its weights have {rows} token embeddings. Copy "
            "the file again."
        )
    for name, most in (("max_position_embeddings", 2**31), ("rms_norm_eps", 0.1), ("layer_norm_eps", 0.1)):
        value = getattr(config, name, 0.1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise ValueError(
                f"{str(folder / 'config.json')!r} says {name} {value!r}; it is a number above 0, at most {most}. Copy the file again."
            )
    if has_tokenizer(folder):  # else it is told by the names of the files
        _check_tokenizer(load_tokenizer(folder), config, rows, folder)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: Any, rows: int, folder: Path) -> None:
    """Whether a tokenizer is the model's, as far as that can be told.

    Args:
        tokenizer: any.
        config: the language model's.
        rows: how many token embeddings it has.
        folder: whose files the two are of.

    Raises:
        ValueError: it makes no tokens or such as the model does not have, or does not know those that end an answer.
    """
    ids = tokenizer(ASKED)["input_ids"]
    if not ids:
        raise ValueError(f"The tokenizer of {str(folder)!r} makes no tokens of a text. Copy its files again.")
    ids += [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
    if not max(ids) < rows:
        raise ValueError(
            f"The tokenizer of {str(folder)!r} makes the token {max(ids)}, but the model has {rows} embeddings. Use the tokenizer that "
            "belongs to it."
        )
    stored = (config.eos_token_id, read_json(folder / "generation_config.json").get("eos_token_id"))
    ends = {token for each in stored for token in (each if isinstance(each, list) else [each]) if token is not None}
    if not ends and tokenizer.eos_token_id is None:
        raise ValueError(
            f"Nothing ends an answer of {str(folder)!r}: neither its tokenizer nor its model names an EOS token. Copy "
            "tokenizer_config.json and config.json again."
        )
    if ends and ends.isdisjoint({*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}):
        raise ValueError(
            f"The model of {str(folder)!r} ends an answer with the tokens {sorted(ends, key=str)}, none of which is a special one of its "
            "tokenizer. Copy config.json and the tokenizer's files again."
        )


def _try_generation(folder: Path) -> None:
    if not read_json(folder / "generation_config.json"):
        return
    settings = GenerationConfig.from_pretrained(folder)
    check_generation(settings, folder)
    if max(settings.num_beams or 1, settings.num_return_sequences or 1) > MAX_BEAMS:
        raise ValueError(f"The generation settings of {str(folder)!r} ask for more than {MAX_BEAMS} answers at once.")
    values = read_json(folder / "config.json")
    sizes = (values, values.get("text_config")) if isinstance(values.get("text_config"), dict) else (values,)
    rows = next((rows for each in sizes if isinstance(rows := each.get("vocab_size"), int) and 0 < rows < MAX_ROWS), MAX_ROWS)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}
    model = LlamaForCausalLM(LlamaConfig(**small, vocab_size=rows)).eval()
    tokenizer = load_tokenizer(folder) if has_tokenizer(folder) else None
    settings.max_new_tokens = 2
    prompt = torch.ones(1, 4, dtype=torch.long)
    try:
        model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings, tokenizer=tokenizer)
    except Exception as error:  # any
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"The generation settings of {str(folder)!r} cannot be used ({told}). Copy the file again.") from error


def _try_values(folder: Path) -> None:
    for place in ("", "vision", "text_encoder", "vision_encoder"):
        for name, tensor in tensor_headers(folder / place).items():
            is_used = tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1 and not name.endswith(COMPUTED_BUFFERS)
            if is_used and not tensor.read().isfinite().all():
                raise ValueError(
                    f"{name} in {str(folder / place)!r} holds values that are not finite (inf or NaN). Copy the weights again."
                )


def quantisation_faults(folder: Path) -> Iterator[str]:
    """What keeps a quantised model from being loaded, a sentence."""
    settings = read_json(folder / "config.json")["quantization_config"]
    method = settings.get("quant_method")
    if not isinstance(method, str) or method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        known = ", ".join(sorted(AUTO_QUANTIZATION_CONFIG_MAPPING))
        yield f"a way to load it: config.json says quant_method {method!r}; transformers knows {known}."
        return
    try:
        AutoHfQuantizer.from_config(settings).validate_environment(device_map=None)
    except ImportError as error:
        yield f"a package: {' '.join(str(error).split())[:300]}"
    except Exception as error:  # settings that do not fit each other fail anywhere
        yield f"settings of its quantisation that can be: {' '.join(str(error).split())[:300]}"


def _try_native(folder: Path) -> None:
    from .native.loading import WholeModel, load_config
    from .native.pipeline import load_pipeline

    _check_sides(folder)
    pipeline, config = load_pipeline(folder), load_config(folder)
    check_chat_template(pipeline.processor, repr(str(folder)))
    _check_template(pipeline, pipeline.processor, folder)
    _check_pixels(pipeline.processor, folder)
    _check_image_tokens(pipeline, config.to_dict(), folder)
    if config.to_dict().get("quantization_config"):
        return
    text, num_tensors = config.get_text_config(), len(tensor_headers(folder))
    if (layers := getattr(text, "num_hidden_layers", 0)) > num_tensors:
        raise ValueError(
            f"{str(folder / 'config.json')!r} says {layers} layers, but there are {num_tensors} tensors. Copy the file again."
        )
    rows = WholeModel.from_pretrained(folder, device_map="meta").get_input_embeddings().weight.shape[0]
    _check_tokenizer(pipeline.processor.tokenizer, text, rows, folder)
    _check_context(pipeline, pipeline.processor.tokenizer, text, rows, folder)


def _check_context(pipeline: Any, tokenizer: PreTrainedTokenizerBase, config: Any, rows: int, folder: Path) -> None:
    """Whether a picture can be written into a prompt.

    Raises:
        ValueError: its tokens are none of the model's, or more than its context.
    """
    (ids,) = pipeline.image_ids([PHOTO_PX], tokenizer)
    if other := next((token for token in ids if not 0 <= token < rows), None):
        raise ValueError(
            f"{str(folder)!r} writes a picture as token {other}, but its model has {rows} embeddings. Copy the folder again."
        )
    if len(ids) >= (length := getattr(config, "max_position_embeddings", None) or len(ids) + 1):
        raise ValueError(
            f"{str(folder / 'config.json')!r} says max_position_embeddings {length}, but a picture alone takes {len(ids)}. Copy the file again."
        )


def _check_sides(folder: Path) -> None:
    for place in (folder, folder / "vision"):
        for name in ("preprocessor_config.json", "processor_config.json"):
            if side := next((side for side in _sides(read_json(place / name)) if not 0 < side <= MAX_SIDE_PX), None):
                raise ValueError(
                    f"{str(place / name)!r} makes pictures of {side} pixels a side; a model takes 1 to {MAX_SIDE_PX}. Copy the file again."
                )


def _try_processor(folder: Path, found: str) -> None:
    _check_sides(folder)
    family = importlib.import_module(f".{found}", __package__)
    if hasattr(family, "check_vision_files"):
        family.check_vision_files(folder)
    if not (hasattr(family, "load_prompt_side") and family.detect_layout(folder) in ("webui", "transformers")):
        return  # its `missing_parts` has opened everything
    side = load_prompt_side(folder)
    processor, config = side.processor, side.config.text_config
    _check_tokenizer(processor.tokenizer, config, config.vocab_size, folder)
    _check_context(side.pipeline, processor.tokenizer, config, config.vocab_size, folder)
    _check_template(side.pipeline, processor, folder)
    _check_pixels(processor, folder)


def _check_template(pipeline: Any, processor: Any, folder: Path) -> None:
    turns = [message("user", "What is this?", 1), message("assistant", "A star."), message("user", "And this?", 1)]
    text = apply_chat_template(processor, turns, add_generation_prompt=True, tokenize=False)
    if not ("What is this?" in text and "And this?" in text):
        raise ValueError(f"The chat template of {str(folder)!r} leaves out what is asked. Copy chat_template.jinja again.")
    if text.count(pipeline.image_mark) != 2:
        raise ValueError(
            f"The chat template of {str(folder)!r} does not write {pipeline.image_mark!r} for each picture. Copy chat_template.jinja again."
        )


def _check_image_tokens(pipeline: Any, config: dict[str, Any], folder: Path) -> None:
    known = {value for key, value in config.items() if IMAGE_TOKENS.search(key) and isinstance(value, int)}
    (ids,) = pipeline.image_ids([PHOTO_PX], pipeline.processor.tokenizer)
    if known and not known & set(ids):
        raise ValueError(
            f"{str(folder / 'config.json')!r} says that {sorted(known)} stand for a picture, but the processor writes "
            f"{max(set(ids), key=ids.count)}. Copy config.json and the tokenizer's files again."
        )


def _check_pixels(processor: Any, folder: Path) -> None:
    made = processor.image_processor([Image.new("RGB", (48, 32), "red")], return_tensors="pt").values()
    tensors = [
        each for value in made for each in (value if isinstance(value, list) else [value]) if isinstance(each, torch.Tensor)
    ]
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ValueError(
            f"The image processor of {str(folder)!r} makes values that are not finite. Copy preprocessor_config.json again."
        )


def _sides(settings: Any) -> Iterator[int]:
    """The sides, in pixels, that an image processor's settings name."""
    for name, value in settings.items():
        if name in ("height", "width", "shortest_edge", "longest_edge") and isinstance(value, int):
            if name != "longest_edge":  # of some families a number of pixels, not a side
                yield value
        elif isinstance(value, dict):
            yield from _sides(value)
