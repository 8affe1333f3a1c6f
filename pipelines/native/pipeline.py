"""A model's own processor as a `VisionPipeline`.

Legend: B rows, T ids of a row, N pictures, H and W their height and width.
"""

import itertools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import PreTrainedConfig

from ..base import ImageFeatures, ImagePart, ImageSpan, VisionPipeline, check_rows_together
from ..chat_template import apply_chat_template
from .inputs import cross_attention_mask, placed, rope_positions, takes_pictures
from .loading import load_config, refusal
from .processing import load_processor

_PROBE = "\u2756"
_PROBED = ((64, 48), (1600, 400))
"""Sizes of a picture that is shown once, and of one that is shown in parts where a processor does so."""
_MAX_REMEMBERED = 256
_MAX_PROCESSED = 4
_TILES = ("do_image_splitting", "crop_to_patches", "do_pan_and_scan", "split_image", "slice_mode")
"""What processors call whether parts of a picture are shown, too."""
_ALWAYS_TILES = {
    **dict.fromkeys(
        ("llava_next", "llava_next_video", "llava_onevision", "granite4_vision"),
        "its grids are fixed; max_pixels makes pictures cost less",
    ),
    **dict.fromkeys(
        ("llama4", "molmo2", "step3p7"), "its processor has no switch for them; max_pixels makes pictures cost less"
    ),
    "mllama": "a picture takes as many tokens without them",
}
"""`model_type` of models that are shown parts of pictures and cannot do without, to the reason."""
_UNEVEN_TILES = frozenset(("aria",))
"""`model_type` of models whose processor takes several pictures only where all have as many parts: they are shown none."""
_CAUSAL = frozenset(
    ("llava", "vipllava", "llava_next", "idefics3", "smolvlm", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")
)
"""`model_type` of models in which no position depends on a picture behind it, and which are known to go on from a cache."""
_PREFIX = frozenset(("paligemma",))
"""`model_type` of models in which every position of a prompt depends on all others; its BOS stands behind the pictures."""
_ROWS_TOGETHER = {
    "mllama": "even",  # what stands before a picture looks at all places for pictures, the empty ones of shorter rows, too
    "emu3": "alone",  # pictures are filled up to the size of the largest, and its convolutions see that
    "hunyuan_vl": "alone",  # it counts pictures, and goes on counting in the next row
}
"""`model_type` of models of which not any rows may stand in one batch."""
_prompts = itertools.count()


class NativePipeline(VisionPipeline):
    """Pictures reach the model as what its own processor makes of them; features are the pictures themselves.

    Args:
        processor: the model's.
        config: the model's.
        name: shown to the user.

    Raises:
        ValueError: the processor has no chat template, or nothing that stands for a picture.
    """

    def __init__(self, processor: Any, config: PreTrainedConfig, name: str = "native"):
        if reason := refusal(config):
            raise ValueError(f"{name} ({config.model_type}) is not taken: {reason}.")
        self.processor = processor
        self.name = name
        self.model_type = config.model_type
        self.keeps_prefix = config.model_type in _CAUSAL
        self.rows_together = _ROWS_TOGETHER.get(config.model_type, "any")
        tokenizer = processor.tokenizer
        self._added = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        self._bos_id = tokenizer.bos_token_id
        self.image_mark = _image_mark(processor, name)
        self._separator_id = _separator(tokenizer, self.image_mark)
        self._separator = tokenizer.convert_ids_to_tokens(self._separator_id)
        self._lengths: OrderedDict[tuple, list[list[int]]] = OrderedDict()
        self._processed: OrderedDict[tuple, dict[str, Tensor]] = OrderedDict()
        self._lock = threading.Lock()
        self._max_pixels: int | None = None
        self._use_tiles: bool | None = None
        self._tiles = tuple(name for name in _TILES if hasattr(processor.image_processor, name))
        self._ends: dict[bool | None, tuple[int, int]] = {}
        try:
            self.adds_bos = self._bos_id is not None and self.model_type not in _PREFIX and self._begins_with_bos()
            whole = self._expanded(_PROBED[:1])[0]
        except Exception as error:  # what a processor makes of odd settings, or of what it does not take in this version
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ValueError(
                f"The processor of {name} ({type(processor).__name__}, transformers {transformers.__version__}) fails on a picture: {reason}. "
                "Copy its files again; it may need a newer transformers."
            ) from error
        self.placeholder_token_id = _placeholder(config, whole)
        self._write_around()
        self._typed = sorted(
            {
                tokenizer.convert_ids_to_tokens(self.placeholder_token_id),
                *(getattr(processor, f"{kind}_token", None) or "" for kind in ("image", "video", "audio", "boi")),
            }
            - {"", self._separator}
        )

    @property
    def fingerprint(self) -> str:
        """Features are the pictures themselves: no weights are in them."""
        return f"native:{self.name}:{self._max_pixels}:{self._use_tiles}"

    def looks_at(self, spans: Sequence[ImageSpan], length: int) -> Sequence[tuple[int, int, str]]:
        if self.model_type in _PREFIX:
            return [(0, length, f"prompt {next(_prompts)}")]  # no other prompt's keys and values are this one's
        return () if self.keeps_prefix else super().looks_at(spans, length)

    @property
    def can_use_tiles(self) -> bool:
        return bool(self._tiles) and self.model_type not in (*_ALWAYS_TILES, *_UNEVEN_TILES)

    def limit_pictures(self, max_pixels: int | None = None, use_tiles: bool | None = None) -> None:
        if use_tiles is not None and not self.can_use_tiles:
            if reason := _ALWAYS_TILES.get(self.model_type):
                raise ValueError(
                    f"use_tiles is {use_tiles}, but {self.name} ({self.model_type}) is always shown parts of large pictures: {reason}. "
                    "Leave it empty."
                )
            if use_tiles:
                raise ValueError(
                    f"use_tiles is True, but {self.name} ({self.model_type}) is shown pictures whole, never in parts. Leave it empty."
                )
        with self._lock:
            self._max_pixels, self._use_tiles = max_pixels, use_tiles
            self._processed.clear()
        self._write_around()

    def image_lengths(
        self, sizes: Sequence[tuple[int, int]], max_pixels: int | None = None, use_tiles: bool | None = None
    ) -> list[int]:
        return [len(ids) for ids in self._ids(sizes, max_pixels, use_tiles)]

    def image_ids(self, sizes: Sequence[tuple[int, int]], tokenizer) -> list[list[int]]:
        return [list(ids) for ids in self._ids(sizes, self._max_pixels, self._use_tiles)]

    def _ids(self, sizes: Sequence[tuple[int, int]], max_pixels: int | None, use_tiles: bool | None) -> list[list[int]]:
        key = (tuple(sizes), max_pixels, use_tiles)
        with self._lock:
            if key in self._lengths:
                self._lengths.move_to_end(key)
                return self._lengths[key]
        expanded = self._expanded([_within(size, max_pixels) for size in sizes], use_tiles)
        before, after = self._plain_ends(use_tiles)
        found = [ids[before : len(ids) - after] for ids in expanded]
        with self._lock:
            self._lengths[key] = found
            while len(self._lengths) > _MAX_REMEMBERED:
                self._lengths.popitem(last=False)
        return found

    def encode_images(self, images: Sequence[Image.Image], lengths: object = None) -> list[ImageFeatures]:
        shown = [_opaque(image).resize(_within(image.size, self._max_pixels), Image.Resampling.BICUBIC) for image in images]
        return [ImageFeatures(inputs={"image": torch.from_numpy(np.array(image))}) for image in shown]  # (H, W, 3)

    def arranged(self, parts: "Sequence[str | ImagePart]") -> "Sequence[str | ImagePart]":
        """The parts; what a user has typed like a picture's token is broken in two, so that it is never taken for one."""
        return [part if isinstance(part, ImagePart) else self._without_typed(part) for part in parts]

    def _without_typed(self, text: str) -> str:
        for token in self._typed:
            text = text.replace(token, f"{token[:2]} {token[2:]}")
        return text

    def model_inputs(
        self,
        language_model: Any,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        spans: Sequence[Sequence[ImageSpan]],
        features: Sequence[Sequence[ImageFeatures]],
        cached: int = 0,
    ) -> dict[str, Tensor]:
        """What the model's own processor gives for all pictures of the rows, ids and mask aside.

        Raises:
            ValueError: the model cannot see, ids stand in a cache and it is not known how it goes on from there, or a span does not
                hold what the processor writes.
        """
        check_rows_together(self.rows_together, [len(places) for places in spans])
        rows = [row for row, places in enumerate(spans) if places]
        whole = language_model.get_base_model() if hasattr(language_model, "get_base_model") else language_model
        if cached and (len(spans) > 1 or (rows and not self.keeps_prefix)):
            raise ValueError(f"Prompts of {self.name} with pictures are not continued from a cache.")
        if cached and takes_pictures(whole):
            return self._behind(whole, input_ids, spans[0], features[0], cached)
        if not rows:
            return {}
        if not takes_pictures(whole):
            raise ValueError(
                f"{type(whole).__name__} takes no pictures: only the text part of {self.name} is loaded. Load the model again."
            )
        given = self._checked(input_ids, rows, spans, features)
        if "cross_attention_mask" in given:
            given["cross_attention_mask"] = cross_attention_mask(
                input_ids, self.placeholder_token_id, given["aspect_ratio_mask"]
            )
        return placed(given, whole)

    def _behind(
        self, whole: Any, input_ids: Tensor, spans: Sequence[ImageSpan], features: Sequence[ImageFeatures], cached: int
    ) -> dict[str, Tensor]:
        """What the model takes for the ids behind `cached`: tensors of the pictures there, and positions where it counts them
        by all pictures of the prompt."""
        if cut := next((span for span in spans if span.start < cached < span.end), None):
            raise ValueError(f"{cached} cached ids end within a picture, which stands at {cut.start} to {cut.end}.")
        new = [index for index, span in enumerate(spans) if span.start >= cached]
        given = {}
        if new:
            given = self._checked(input_ids, [0], [[spans[i] for i in new]], [[features[i] for i in new]])
        types = given.pop("mm_token_type_ids", None)
        if hasattr(whole.base_model, "get_rope_index"):
            grids = None
            if spans:
                everything = self._checked(input_ids, [0], [spans], [features])
                types, grids = everything["mm_token_type_ids"], everything["image_grid_thw"]
            given["position_ids"] = rope_positions(whole.base_model, input_ids, types, grids)[..., cached:]
        return placed(given, whole)

    def _checked(
        self,
        input_ids: Tensor,
        rows: Sequence[int],
        spans: Sequence[Sequence[ImageSpan]],
        features: Sequence[Sequence[ImageFeatures]],
    ) -> dict[str, Tensor]:
        """The processor's tensors for the pictures of these rows, types of ids spread over (B, T).

        Raises:
            ValueError: a span does not hold what the processor writes.
        """
        given = dict(
            self._of_pictures([[(span, found) for span, found in zip(spans[row], features[row], strict=True)] for row in rows])
        )
        theirs = given.pop("input_ids")
        segments = [
            [(start + self._before, end - self._after) for start, end in self._segments(ids)] for ids in theirs.tolist()
        ]
        for row, found in zip(rows, segments, strict=True):
            if len(found) != len(spans[row]):
                raise ValueError(f"{len(spans[row])} pictures in the prompt but {len(found)} from the processor.")
            for span, (start, end) in zip(spans[row], found, strict=True):
                if input_ids[row, span.start : span.end].tolist() != theirs[rows.index(row), start:end].tolist():
                    raise ValueError(
                        f"The ids of a picture of {span.image.size} are not the processor's. Was the prompt cut inside it?"
                    )
        for name, values in given.items():
            if name.endswith("token_type_ids") and values.shape == theirs.shape:
                full = torch.zeros(input_ids.shape, dtype=values.dtype)
                for row, found, of_row in zip(rows, segments, values, strict=True):
                    for span, (start, end) in zip(spans[row], found, strict=True):
                        full[row, span.start : span.end] = of_row[start:end]
                given[name] = full
        return given

    def move(self, device: "torch.device | str", dtype: "torch.dtype | None" = None) -> None:
        """Nothing: the pictures are encoded inside the model, where that is."""

    def _of_pictures(self, rows: Sequence[Sequence[tuple[ImageSpan, ImageFeatures]]]) -> dict[str, Tensor]:
        """The processor's output for the pictures of each row; the last few are kept."""
        key = tuple(tuple((span.image.key, span.image.size) for span, _ in row) for row in rows)
        with self._lock:
            if key in self._processed:
                self._processed.move_to_end(key)
                return self._processed[key]
        images = [[Image.fromarray(found.inputs["image"].cpu().numpy()) for _, found in row] for row in rows]
        output = self._process(images, self._use_tiles)
        for name in ("attention_mask", "labels"):
            output.pop(name, None)
        with self._lock:
            self._processed[key] = output
            while len(self._processed) > _MAX_PROCESSED:
                self._processed.popitem(last=False)
        return output

    def _process(self, rows: Sequence[Sequence[Image.Image]], use_tiles: bool | None = None) -> dict[str, Tensor]:
        texts = [self._separator + "".join(self.image_mark + self._separator for _ in row) for row in rows]
        images = [list(row) for row in rows]  # by row: some processors spend less on each where there are several
        # As arguments: some processors have defaults that go before their settings.
        asked = {} if use_tiles is None else dict.fromkeys(self._tiles, use_tiles)
        output = self.processor(images=images, text=texts, padding=True, add_special_tokens=False, return_tensors="pt", **asked)
        return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in output.items()}

    def _segments(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Where the processor's ids of each picture begin and end, plain text at their ends included, a BOS behind the last not."""
        places = [place for place, token in enumerate(ids) if token == self._separator_id]
        found = [(start + 1, end) for start, end in itertools.pairwise(places) if end - start > 1]
        return [(start, end - (ids[end - 1] == self._bos_id)) for start, end in found]

    def _expanded(self, sizes: Sequence[tuple[int, int]], use_tiles: bool | None = None) -> list[list[int]]:
        """What the processor writes for pictures of these sizes, each with the plain text at its ends."""
        ids = self._process([[Image.new("RGB", size) for size in sizes]], use_tiles)["input_ids"][0].tolist()
        found = [ids[start:end] for start, end in self._segments(ids)]
        if len(found) != len(sizes):
            raise ValueError(f"The processor of {self.name} writes {len(found)} stretches of ids for {len(sizes)} pictures.")
        return found

    def _begins_with_bos(self) -> bool:
        """Whether the tokenizer, or the processor where its template writes none, begins a prompt with it."""
        if self.processor.tokenizer("a")["input_ids"][:1] == [self._bos_id]:
            return True
        return (
            self._separator_id != self._bos_id
            and int(self._process([[Image.new("RGB", (64, 48))]])["input_ids"][0, 0]) == self._bos_id
        )

    def _write_around(self) -> None:
        """Set what stands around every picture as plain text, so that it is tokenised with the text beside it."""
        self._before, self._after = self._plain_ends(self._use_tiles)
        ids = self._expanded(_PROBED[:1], self._use_tiles)[0]
        self.image_start = self.processor.tokenizer.decode(ids[: self._before])
        self.image_end = self.processor.tokenizer.decode(ids[len(ids) - self._after :])

    def _plain_ends(self, use_tiles: bool | None) -> tuple[int, int]:
        """How many ids of plain text every picture begins with, and ends with; 0 where they do not begin, or end, with the same."""
        if use_tiles not in self._ends:
            pictures = [self._expanded([size], use_tiles)[0] for size in _PROBED]
            self._ends[use_tiles] = tuple(self._plain(each) for each in (pictures, [ids[::-1] for ids in pictures]))
        return self._ends[use_tiles]

    def _plain(self, pictures: Sequence[Sequence[int]]) -> int:
        found = {tuple(itertools.takewhile(lambda token: token not in self._added, ids)) for ids in pictures}
        return len(found.pop()) if len(found) == 1 else 0


def _image_mark(processor: Any, name: str) -> str:
    """What a chat template writes for one picture: the difference between a message with and without it."""
    if not (getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)):
        raise ValueError(f"{name} has no chat template, so it was not made to chat. Add a chat_template.jinja to its folder.")
    text = {"type": "text", "text": _PROBE}

    def rendered(*content: dict) -> str:
        return apply_chat_template(
            processor, [{"role": "user", "content": list(content)}], tokenize=False, add_generation_prompt=True
        )

    without, one, two = rendered(text), rendered({"type": "image"}, text), rendered({"type": "image"}, {"type": "image"}, text)
    head = one.partition(_PROBE)[0]
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(without.partition(_PROBE)[0], head, strict=False))
    mark = head[len(list(same)) :]
    token = getattr(processor, "image_token", None) or getattr(processor, "boi_token", None)
    if mark.strip() and two.count(mark) == 2:
        return mark
    if token and one.count(token) == 1 and two.count(token) == 2:
        return token
    raise ValueError(f"The chat template of {name} writes nothing for a picture that can be told from the rest: {one!r}.")


def _separator(tokenizer: Any, mark: str) -> int:
    """A token that no picture is written with."""
    for token_id in (tokenizer.eos_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids):
        token = None if token_id is None else tokenizer.convert_ids_to_tokens(token_id)
        if token and token not in mark and tokenizer(token, add_special_tokens=False)["input_ids"] == [token_id]:
            return token_id
    raise ValueError("The tokenizer has no special token of its own.")


def _placeholder(config: PreTrainedConfig, ids: Sequence[int]) -> int:
    names = ("image_token_id", "image_token_index")
    known = {getattr(config, name, None) for name in names} | {getattr(config.get_text_config(), name, None) for name in names}
    return next((token for token in ids if token in known), max(set(ids), key=ids.count))


def _within(size: tuple[int, int], max_pixels: int | None) -> tuple[int, int]:
    """The size at which a picture is handed to the processor."""
    if max_pixels is None or math.prod(size) <= max_pixels:
        return size
    ratio = math.sqrt(max_pixels / math.prod(size))
    return tuple(max(1, int(side * ratio)) for side in size)


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, transparency over white."""
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def load_pipeline(folder: str | os.PathLike, device=None, dtype=None) -> NativePipeline:
    """See `pipelines.registry.load_pipeline`; for whoever runs the whole model. No weights are read."""
    folder = Path(folder)
    config = load_config(folder)
    return NativePipeline(load_processor(folder), config, folder.resolve().name)


def pipeline_of(model: Any, processor: Any) -> NativePipeline:
    """See `pipelines.registry.pipeline_of`."""
    return NativePipeline(processor, model.config, Path(model.config._name_or_path or "native").name)
