"""How a VisualCLA model's parts are found and put together; the layouts are in `layouts.py`.

Nothing is loaded before the headers of the weight files say that every weight is there, in the shape that the configuration asks for.
"""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from ..checkpoints.layouts import Layout, detect
from ..checkpoints.stored_tensors import StoredTensor, load_tensors, model_tensors
from ..checkpoints.structure import COMPUTED_BUFFERS, language_model, model_config, read_config
from ..checkpoints.weight_files import has_leftover_adapter, model_files
from ..embedder import embedding_device
from ..fixed_length import CONVERT_FIRST
from ..hub import hub_kwargs_of, resolve_folder
from ..tokenization import has_tokenizer, load_tokenizer
from .adapter import apply_adapter
from .configuration_visualcla import VisualCLAConfig, load_config
from .layouts import LAYOUTS, TEXT, TRANSFORMERS, VISION_PARTS
from .modeling_visualcla import VisualCLAForConditionalGeneration, VisualCLAModel, VisualCLAVisionModel
from .processing_visualcla import VisualCLAProcessor
from .tokenization_visualcla import IMAGE_TOKEN


def detect_layout(folder: Path) -> str:
    """The name of a folder's layout; see `find_layout`."""
    return find_layout(folder).name


def find_layout(folder: Path) -> Layout:
    """A folder's layout.

    Raises:
        ValueError: it has none; says what is missing.
    """
    found = detect(folder, LAYOUTS)
    if found is not None:
        return found
    there = sorted(path.name for path in folder.iterdir())[:12]
    missing = [name for name in ("config.json", "vision/config.json", "model.safetensors") if not (folder / name).exists()]
    raise ValueError(
        f"{str(folder)!r} is not a VisualCLA checkpoint: missing {missing}; it holds {there}. "
        "Make one: python -m training merge --help"
    )


def load_eyes(
    name_or_path: str | os.PathLike,
    vision_model: str | os.PathLike | None = None,
    dtype: torch.dtype | str | None = None,
    **kwargs: Any,
) -> VisualCLAVisionModel:
    """The eyes of any layout, without its language model.

    Args:
        name_or_path: the model's folder, its `vision/` folder, or a hub name.
        vision_model: the vision encoder that a release was trained on (for layout `release` only).
        dtype: of the weights; as stored when absent.

    Raises:
        FileNotFoundError, ValueError: see `resolve_folder`, `detect_layout`; weights are missing or do not fit.
    """
    folder = resolve_folder(name_or_path, **hub_kwargs_of(kwargs))
    config = load_config(folder)
    _set_image_token_id(config, folder)
    if (folder / "vision" / "config.json").is_file():
        folder = folder / "vision"
    elif not model_files(folder) or (folder / "text_encoder").is_dir():
        return _load_eyes_of_original(folder, config, vision_model, dtype)
    check_vision_model(config, _stored(folder), folder)
    eyes = VisualCLAVisionModel.from_checkpoint(folder, config=config, dtype=dtype)
    return eyes.eval()


def load_pretrained(
    name_or_path: str | os.PathLike,
    *,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    lora_model: str | os.PathLike | None = None,
    dtype: torch.dtype | str | None = "auto",
    device_map: Any = None,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    quantization_config: Any = None,
    use_adapter: bool = True,
    **kwargs: Any,
) -> VisualCLAForConditionalGeneration:
    """A whole model from any layout, in evaluation mode, with its processor as `model.processor`.

    Args:
        name_or_path: folder or hub name.
        text_model: the language model under a release (layout `release` only).
        vision_model: the vision encoder under a release (layout `release` only).
        lora_model: an adapter to put on top of a whole model (PEFT's format or the release's).
        dtype: of the weights; the eyes never get less than 16 bits.
        device_map: as in transformers, for the language model; the eyes go where its embeddings are.
        load_in_8bit: quantise the language model through bitsandbytes; the eyes stay as they are.
        load_in_4bit: as `load_in_8bit`, with 4 bits.
        use_adapter: put a release's adapter on its bases; without it they come bare, for `PeftModel.from_pretrained`.
        kwargs: for the language model's `from_pretrained` (`attn_implementation`, `revision`, ...).

    Raises:
        FileNotFoundError, ValueError: files are missing, or do not fit each other; the message says which and what to do.
    """
    hub_kwargs = hub_kwargs_of(kwargs)
    folder = resolve_folder(name_or_path, **hub_kwargs)
    layout = detect_layout(folder)
    if layout != "release" and (text_model is not None or vision_model is not None):
        raise ValueError(f"{str(folder)!r} is a whole model: text_model and vision_model are for a release. Leave them out.")
    quantization = quantization_config or _quantization(load_in_8bit, load_in_4bit)
    config = kwargs.pop("config", None)
    text_kwargs = {"dtype": dtype, "device_map": device_map, "quantization_config": quantization, **kwargs}
    text_kwargs = {key: value for key, value in text_kwargs.items() if value is not None}

    if layout == "transformers":
        model = _load_composite(folder, config or load_config(folder), text_kwargs)
    else:
        config = load_config(folder)
        text_folder = {"webui": folder, "original": folder / "text_encoder"}.get(layout)
        if layout == "release":
            if text_model is None or vision_model is None:
                raise ValueError(
                    f"{str(folder)!r} is an adapter: it needs the language model and the vision encoder it was trained on. Give "
                    "text_model and vision_model (--text_model, --vision_model), or merge them once: python -m training merge --help"
                )
            text_folder = resolve_folder(text_model, **hub_kwargs)
        language_model = _load_text_model(text_folder, text_kwargs)
        if layout == "release" and use_adapter:
            language_model.resize_token_embeddings(len(load_tokenizer(folder)), mean_resizing=False)
        # The eyes have no accelerate hooks of their own, so they never sit on a device of their own.
        eyes_dtype = language_model.dtype if dtype == "auto" else dtype
        if layout == "release":
            eyes = _load_eyes_of_release(folder, config, vision_model, eyes_dtype)
        else:
            eyes = load_eyes(folder, dtype=eyes_dtype)
        model = compose(eyes, language_model)
        if layout == "release" and use_adapter:
            apply_adapter(model, folder)
    _set_image_token_id(model.config, folder)
    if has_tokenizer(folder) or layout != "transformers" or model.config.image_token_id is None:
        model.processor = VisualCLAProcessor.from_pretrained(folder)
        tokenizer, context = model.processor.tokenizer, model.config.text_config.max_position_embeddings
        tokenizer.model_max_length = min(tokenizer.model_max_length, context)
    # else it is what `model.save_pretrained` writes by itself, as trainers do; its processor lies elsewhere
    if use_adapter and model.processor is not None:
        _check_vocabulary(model, folder)
    if lora_model is not None:
        adapter = resolve_folder(lora_model, **hub_kwargs)
        apply_adapter(model, adapter)
        if model.processor is not None:
            model.processor = model.processor.with_tokenizer_of(adapter)
    if load_in_4bit:
        _check_4bit_widths(model)
    return model.eval()


def read_whole_config(folder: Path) -> tuple[VisualCLAConfig, StoredTensor]:
    """The configuration of a whole model, its vocabulary counted on the weights, and where its input embeddings are stored.

    Raises:
        ValueError: the folder has another layout than `webui` and `transformers`, or its language model is not whole.
    """
    layout, config = detect_layout(folder), load_config(folder)
    if layout not in ("webui", "transformers"):
        raise ValueError(CONVERT_FIRST.format(path=str(folder), family=config.model_type))
    if layout == "webui":
        config.text_config, tensors = model_config(read_config(folder), folder), model_tensors(folder)
    else:
        tensors = {name.removeprefix(TEXT): tensor for name, tensor in _stored(folder).items() if name.startswith(TEXT)}
    structure = language_model(config.text_config, tensors, folder)
    if structure.unused:
        raise ValueError(
            f"{str(folder)!r} holds {structure.unused[:3]}, which its language model does not have. Copy it again."
        )
    config.text_config.vocab_size = tensors[structure.embedding].shape[0]
    return config, tensors[structure.embedding]


def compose(eyes: VisualCLAVisionModel, text_model: PreTrainedModel) -> VisualCLAForConditionalGeneration:
    """Eyes and a loaded language model as one model, sharing their weights.

    Raises:
        ValueError: the eyes were made for another width.
    """
    given, expected = eyes.config.text_config.hidden_size, text_model.config.get_text_config().hidden_size
    if given != expected:
        raise ValueError(
            f"The eyes give embeddings of width {given}, but the language model's width is {expected}: they belong to another "
            "language model."
        )
    with torch.device("meta"):
        model = VisualCLAForConditionalGeneration(eyes.config, text_model=text_model)
    device = embedding_device(text_model)
    for name in VISION_PARTS:
        part = getattr(eyes, name)
        setattr(model.model, name, part if part is None else part.to(device))
    model.generation_config = text_model.generation_config
    return model


def _load_text_model(folder: Path, kwargs: dict[str, Any]) -> PreTrainedModel:
    """The language model, its vocabulary counted on the weights: the original's merged folders state a stale one."""
    config, tensors = model_config(read_config(folder), folder), model_tensors(folder)
    structure = language_model(config, tensors, folder)
    config.get_text_config().vocab_size = tensors[structure.embedding].shape[0]
    try:
        if not has_leftover_adapter(folder):
            return AutoModelForCausalLM.from_pretrained(folder, config=config, trust_remote_code=False, **kwargs)
        # transformers would put an adapter that lies beside the weights on top of them once more.
        state = {name: tensor.map() for name, tensor in tensors.items()}
        model_class = AutoModelForCausalLM._model_mapping[type(config)]
        model = model_class.from_pretrained(None, config=config, state_dict=state, **kwargs)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        return model
    except ImportError as error:
        if "quantization_config" in kwargs:
            raise ImportError(f"8-bit and 4-bit loading needs bitsandbytes: pip install bitsandbytes. ({error})") from error
        raise


def _load_composite(folder: Path, config: VisualCLAConfig, kwargs: dict[str, Any]) -> VisualCLAForConditionalGeneration:
    quantization = kwargs.get("quantization_config")
    if quantization is not None and not quantization.llm_int8_skip_modules:
        quantization.llm_int8_skip_modules = [*(f"model.{part}" for part in VISION_PARTS), "lm_head"]
    tensors = _stored(folder)
    check_vision_model(config, tensors, folder)
    language_model(
        config.text_config, {name.removeprefix(TEXT): t for name, t in tensors.items() if name.startswith(TEXT)}, folder
    )
    return VisualCLAForConditionalGeneration.from_checkpoint(folder, config=config, **_without_adapter(folder, kwargs))


def check_vision_model(config: VisualCLAConfig, tensors: dict[str, StoredTensor], folder: Path) -> None:
    """Compare the stored vision model with its configuration.

    Args:
        config: of the model.
        tensors: canonical name to tensor; those of the language model are not looked at.
        folder: for errors.

    Raises:
        ValueError: tensors are missing, left over, or have another shape.
    """
    try:
        with torch.device("meta"):
            expected = VisualCLAVisionModel(config).state_dict()
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{str(folder)!r}: its config.json makes no vision model: {' '.join(str(error).split())[:300]}"
        ) from error
    given = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(TEXT)}
    check_shapes(expected, given, folder)


def check_vision_files(folder: Path) -> None:
    """`check_vision_model` of a folder that holds the vision model in one place.

    Raises:
        ValueError: tensors are missing, have another shape, or no place.
    """
    place = folder / "vision" if (folder / "vision" / "config.json").is_file() else None
    if place is not None:
        check_vision_model(load_config(folder), _stored(place), place)


def check_shapes(expected: dict[str, torch.Tensor], given: dict[str, tuple[int, ...]], folder: Path) -> None:
    """Raises ValueError where the given tensors are not exactly the expected ones."""
    leftover = [name for name in given if name not in expected and not name.endswith(COMPUTED_BUFFERS)]
    missing = [name for name in expected if name not in given]
    wrong = [name for name in expected if name in given and tuple(given[name]) != tuple(expected[name].shape)]
    if missing or leftover or wrong:
        raise ValueError(
            f"{str(folder)!r} does not fit its config.json: {len(missing)} tensors missing {missing[:3]}, {len(leftover)} unknown "
            f"{leftover[:3]}, {len(wrong)} of another shape {wrong[:3]}."
        )


def _stored(folder: Path) -> dict[str, StoredTensor]:
    """A composite checkpoint, or a vision model of its own, under canonical names."""
    return {TRANSFORMERS.canonical(name) or name: tensor for name, tensor in model_tensors(folder).items()}


def _without_adapter(folder: Path, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Refuses a composite folder in which an adapter lies beside the weights; transformers would put it on top once more."""
    if has_leftover_adapter(folder):
        raise ValueError(
            f"{str(folder)!r} holds a whole model and an adapter beside it: move adapter_config.json and adapter_model.* away, or give "
            "the adapter's folder as lora_model."
        )
    return kwargs


def _load_eyes_of_original(
    folder: Path, config: VisualCLAConfig, vision_model: str | os.PathLike | None, dtype: torch.dtype | str | None
) -> VisualCLAVisionModel:
    if (folder / "adapter_config.json").is_file() and not (folder / "text_encoder").is_dir():
        if vision_model is None:
            raise ValueError(
                f"{str(folder)!r} is an adapter: it needs the vision encoder it was trained on. Give vision_model."
            )
        eyes = _load_eyes_of_release(folder, config, vision_model, dtype)
        apply_adapter(eyes, folder)
        return eyes.eval()
    state = load_tensors(folder)
    state |= {f"vision_model.{name}": tensor for name, tensor in load_tensors(folder / "vision_encoder").items()}
    return _eyes_from_state(config, state, dtype, folder)


def _load_eyes_of_release(
    folder: Path, config: VisualCLAConfig, vision_model: str | os.PathLike, dtype: torch.dtype | str | None
) -> VisualCLAVisionModel:
    """Vision encoder of the base, resampler and projector still unset: the adapter brings them."""
    base = resolve_folder(vision_model)
    state = {f"vision_model.{name}": tensor for name, tensor in load_tensors(base).items() if name.startswith("vision_model.")}
    if not state:
        raise ValueError(f"{str(base)!r} holds no vision encoder: no tensor is named 'vision_model.*'. Give the CLIP model.")
    eyes = VisualCLAVisionModel(config)
    reference = eyes.state_dict()
    state |= {name: tensor for name, tensor in reference.items() if not name.startswith("vision_model.")}
    return _eyes_from_state(config, state, dtype, base)


def _eyes_from_state(
    config: VisualCLAConfig, state: dict[str, torch.Tensor], dtype: torch.dtype | str | None, folder: Path
) -> VisualCLAVisionModel:
    """Released names to the model's; nothing may be missing, nothing may be left over."""
    state = {name.replace("vision_model.vision_model.", "vision_model."): tensor for name, tensor in state.items()}
    if dtype in (None, "auto"):
        dtype = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32)
    eyes = VisualCLAVisionModel(config).to(dtype)
    expected = eyes.state_dict()
    check_shapes(expected, {name: tensor.shape for name, tensor in state.items()}, folder)
    eyes.load_state_dict({name: state[name] for name in expected})
    return eyes.eval()


def _set_image_token_id(config: VisualCLAConfig, folder: Path) -> None:
    if config.image_token_id is None:
        holder = folder if has_tokenizer(folder) else folder.parent
        try:
            tokenizer = load_tokenizer(holder)
        except (OSError, ValueError):
            return
        config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)


def _check_vocabulary(model: VisualCLAForConditionalGeneration, folder: Path) -> None:
    rows, tokens = model.get_input_embeddings().weight.shape[0], len(model.processor.tokenizer)
    if tokens > rows:
        raise ValueError(
            f"The tokenizer of {str(folder)!r} has {tokens} tokens but the language model only {rows} embeddings. Use the tokenizer "
            "that was saved with the model, or merge again: python -m training merge --help"
        )


def _check_4bit_widths(model: VisualCLAForConditionalGeneration) -> None:
    """On a CPU bitsandbytes packs 4-bit weights in blocks, and says so only when the first token is computed."""
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=embedding_device(model)))
    except AssertionError as error:
        raise ValueError(
            f"This language model cannot be computed in 4 bits on this processor: its layer widths are no multiples of "
            f"bitsandbytes' block size ({error}). Load it in 8 bits (load_in_8bit)."
        ) from error


def _quantization(load_in_8bit: bool, load_in_4bit: bool) -> BitsAndBytesConfig | None:
    if load_in_8bit and load_in_4bit:
        raise ValueError("load_in_8bit and load_in_4bit exclude each other; give one of them.")
    if load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    if load_in_4bit:
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_quant_type="nf4")
    return None


VisualCLAVisionModel.open_folder = staticmethod(load_eyes)
VisualCLAModel.open_folder = staticmethod(lambda *args, **kwargs: load_pretrained(*args, **kwargs).model)
VisualCLAForConditionalGeneration.open_folder = staticmethod(load_pretrained)
