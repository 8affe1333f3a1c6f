"""Whether a model folder that looks whole would answer: its parts are tried without its weights.

The model is made on the meta device and compared with what its files hold, whose values are looked through once; tokenizer, chat template
and image processor are opened and used on a small picture (`trial_checks.py`), generation settings on a model of a few weights. What fails
is a sentence for the doctor. Needs PyTorch.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer

from .chat_template import check_chat_template
from .checkpoints.adapters import read_adapter
from .checkpoints.stored_tensors import stored_tensors, tensor_headers
from .checkpoints.structure import COMPUTED_BUFFERS, language_model, model_config, read_config
from .json_files import read_json
from .registry import check_generation, load_prompt_side
from .tokenization import has_tokenizer, load_tokenizer
from .trial_checks import (
    check_context,
    check_image_tokens,
    check_pixels,
    check_sides,
    check_template,
    check_tokenizer,
)

MAX_BEAMS = 64
"""Of an answer, or answers at once."""

MAX_ROWS = 300_000
"""Of a vocabulary; the largest known has 262,144."""


def faults(folder: Path, found: str | None, reads_weights: bool = True) -> Iterator[str]:
    """What keeps a folder from answering, a sentence each.

    Args:
        folder: with weights and, of a known family, an image processor; nothing that its names tell is missing.
        found: its family; None for a language model by itself.
        reads_weights: their values are looked through, too.
    """
    trials: list[Callable[[], object]] = [lambda: _try_generation(folder)]
    if reads_weights:
        trials.append(lambda: _try_values(folder))
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


def adapter_faults(folder: Path, found: str | None, reads_weights: bool = True) -> Iterator[str]:
    """What keeps an adapter from being merged or loaded with any model, a sentence; families read those of their own by themselves."""
    try:
        if found is None:
            read_adapter(folder)
        if reads_weights:
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
    if getattr(config, "is_encoder_decoder", False):
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
        check_tokenizer(load_tokenizer(folder), config, rows, folder)


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

    check_sides(folder)
    pipeline, config = load_pipeline(folder), load_config(folder)
    check_chat_template(pipeline.processor, repr(str(folder)))
    check_template(pipeline, pipeline.processor, folder)
    check_pixels(pipeline.processor, folder)
    check_image_tokens(pipeline, config.to_dict(), folder)
    if config.to_dict().get("quantization_config"):
        return
    text, num_tensors = config.get_text_config(), len(tensor_headers(folder))
    if (layers := getattr(text, "num_hidden_layers", 0)) > num_tensors:
        raise ValueError(
            f"{str(folder / 'config.json')!r} says {layers} layers, but there are {num_tensors} tensors. Copy the file again."
        )
    rows = WholeModel.from_pretrained(folder, device_map="meta").get_input_embeddings().weight.shape[0]
    check_tokenizer(pipeline.processor.tokenizer, text, rows, folder)
    check_context(pipeline, pipeline.processor.tokenizer, text, rows, folder)


def _try_processor(folder: Path, found: str) -> None:
    check_sides(folder)
    family = importlib.import_module(f".{found}", __package__)
    if hasattr(family, "check_vision_files"):
        family.check_vision_files(folder)
    if not (hasattr(family, "load_prompt_side") and family.detect_layout(folder) in ("webui", "transformers")):
        return  # its `missing_parts` has opened everything
    side = load_prompt_side(folder)
    processor, config = side.processor, side.config.text_config
    check_tokenizer(processor.tokenizer, config, config.vocab_size, folder)
    check_context(side.pipeline, processor.tokenizer, config, config.vocab_size, folder)
    check_template(side.pipeline, processor, folder)
    check_pixels(processor, folder)
