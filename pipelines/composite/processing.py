"""The processor of a composite model: conversations and images in, model inputs out.

The text around images is tokenised piece by piece, as the originals do it: each piece gets its own prefix space, and BOS stands in
front of the first one only. An image is as many placeholder ids as it has embeddings.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..hub import hub_kwargs_of, resolve_folder
from ..images import load_image
from ..json_files import read_json
from ..tokenization import load_tokenizer

PLACEHOLDER = "<0x00>"
"""The token whose id an image's embeddings replace: the byte 0, which every LLaMA vocabulary has and no text holds."""


class CompositeProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template.

    Args:
        image_processor: resizes to a square, aspect ratio ignored, CLIP's mean and standard deviation. Gets RGB.
        tokenizer: the language model's.
        chat_template: the family's when absent; it writes `image_mark` for each image.
        num_image_embeds: Q, placeholders per image.
        image_token_id: the placeholder's id.
    """

    image_processor_class = "CLIPImageProcessorPil"
    tokenizer_class = "AutoTokenizer"
    image_token: str
    """What stands for one image in a text."""

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        chat_template: str | None = None,
        num_image_embeds: int = 0,
        image_token_id: int = 3,
        **kwargs: Any,
    ):
        self.num_image_embeds = num_image_embeds
        self.image_token_id = image_token_id
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @staticmethod
    def template(prompt_style: str) -> str:
        """The family's chat template with one of its styles as the default."""
        raise NotImplementedError

    @classmethod
    def of(cls, tokenizer_folder: Path, config) -> "CompositeProcessor":
        """The processor of a configuration, with the tokenizer of a folder.

        Raises:
            FileNotFoundError: there is no tokenizer.
            ValueError: the tokenizer is of another vocabulary.
        """
        tokenizer = load_tokenizer(tokenizer_folder)
        if tokenizer.convert_ids_to_tokens(config.image_token_id) != PLACEHOLDER:
            raise ValueError(
                f"{str(tokenizer_folder)!r}: the token {config.image_token_id} is "
                f"{tokenizer.convert_ids_to_tokens(config.image_token_id)!r}, not {PLACEHOLDER!r}. Use LLaMA's tokenizer."
            )
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token
        side_px = config.vision_config.image_size
        size = {"height": side_px, "width": side_px}
        image_processor = CLIPImageProcessorPil(
            size=size, crop_size=size, do_center_crop=False, do_convert_rgb=True, resample=Image.Resampling.BICUBIC
        )
        template = cls.template(config.prompt_style)
        return cls(image_processor, tokenizer, template, config.num_image_embeds, config.image_token_id)

    @classmethod
    def config_of(cls, folder: Path):
        """The configuration of a folder that this project wrote."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "CompositeProcessor":
        """Open the processor of a folder, here or on the hub, that this project wrote."""
        folder = resolve_folder(pretrained_model_name_or_path, **hub_kwargs_of(kwargs))
        processor = cls.of(folder, cls.config_of(folder))
        template = folder / "chat_template.jinja"
        if template.is_file():
            processor.chat_template = template.read_text(encoding="utf-8")
        return processor

    def ids(self, text: str, with_bos: bool = True) -> list[int]:
        """Text with image marks to ids.

        Args:
            text: each `image_token` stands for one image. A BOS that is written in front of it counts.
            with_bos: put BOS in front.
        """
        bos = self.tokenizer.bos_token
        text = text.removeprefix(bos)
        ids = [self.tokenizer.bos_token_id] if with_bos else []
        for index, piece in enumerate(text.split(self.image_token)):
            if index:
                ids += [self.image_token_id] * self.num_image_embeds
            if piece:
                ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return ids

    def __call__(
        self,
        images=None,
        text: str | list[str] | None = None,
        return_tensors: str | None = "pt",
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare rows of text with images in them; shorter rows are padded on the left.

        Args:
            images: one image, a list of images in reading order over all rows, or one list per row. An image is whatever
                `pipelines.images.load_image` takes.
            text: one row or several; each `image_token` stands for one image.
            max_length: refuse rows that are longer.

        Returns:
            `input_ids`, `attention_mask` (B, T) and, with images, `pixel_values` (N, 3, S, S).

        Raises:
            ValueError: images and marks differ in number, or a row is longer than `max_length`.
        """
        rows = [text] if isinstance(text, str) else list(text or [])
        pictures = list(_flatten(images))
        num_marks = sum(row.count(self.image_token) for row in rows)
        if num_marks != len(pictures):
            raise ValueError(
                f"{num_marks} image marks in the text but {len(pictures)} images. Write {self.image_token!r} once per image "
                "(apply_chat_template does)."
            )
        ids = [self.ids(row) for row in rows]
        longest = max(map(len, ids), default=0)
        if max_length is not None and longest > max_length:
            raise ValueError(
                f"A row has {longest} tokens, more than max_length {max_length}. Drop whole turns; an image is never cut."
            )
        pad = self.tokenizer.pad_token_id
        values = {
            "input_ids": [[pad] * (longest - len(row)) + row for row in ids],
            "attention_mask": [[0] * (longest - len(row)) + [1] * len(row) for row in ids],
        }
        inputs = BatchFeature(values, tensor_type=return_tensors)
        if pictures:
            inputs["pixel_values"] = self.preprocess_images(pictures)
        return inputs

    def preprocess_images(self, images: list) -> torch.Tensor:
        """Images to (N, 3, S, S), RGB, normalised."""
        rgb = [(image if isinstance(image, Image.Image) else load_image(image)).convert("RGB") for image in images]
        return self.image_processor(rgb, return_tensors="pt")["pixel_values"]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]


def _flatten(images) -> Iterable:
    if images is None:
        return
    if isinstance(images, (list, tuple)):
        for image in images:
            yield from _flatten(image)
    else:
        yield images


def read_settings(folder: Path) -> dict[str, Any]:
    """The configuration that names the family: of `vision/` first, else of the folder itself."""
    return read_json(folder / "vision" / "config.json") or read_json(folder / "config.json")
