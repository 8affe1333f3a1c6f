"""VisualCLA's processor: conversations and images in, model inputs out.

The prompt is the Alpaca template of `chat_template.jinja`. An image stands in it as `<img><img_token></img>`; the processor
writes `num_image_embeds` placeholders for that one, so that the length is known before anything is embedded.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.processing_utils import MultiModalData, ProcessingKwargs
from transformers.utils import cached_file

from ..hub import hub_kwargs_of
from ..images import load_image
from ..json_files import read_json
from ..tokenization import has_tokenizer, load_tokenizer, plain_template
from .configuration_visualcla import load_config
from .tokenization_visualcla import IMAGE_END, IMAGE_START, IMAGE_TOKEN

IMAGE_MARK = f"{IMAGE_START}{IMAGE_TOKEN}{IMAGE_END}\n"
"""What the chat template writes for one image."""

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


class VisualCLAProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = {"text_kwargs": {"padding": False, "add_special_tokens": False}}


class VisualCLAProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template of a VisualCLA model.

    Args:
        image_processor: CLIP's or SigLIP's. It gets RGB; an alpha channel is dropped, as VisualCLA was trained.
        tokenizer: has the tokens `<img>`, `</img>` and `<img_token>`.
        chat_template: VisualCLA's own when absent.
        num_image_embeds: Q, placeholders per image.

    Example:
        >>> processor = VisualCLAProcessor.from_pretrained("demo/model")
        >>> messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        >>> text = processor.apply_chat_template(messages, add_generation_prompt=True)
        >>> inputs = processor(images=[image], text=text, return_tensors="pt")
    """

    image_processor_class = ("CLIPImageProcessorPil", "SiglipImageProcessorPil")
    tokenizer_class = "AutoTokenizer"
    valid_processor_kwargs = VisualCLAProcessorKwargs

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        chat_template: str | None = None,
        num_image_embeds: int = 64,
        **kwargs: Any,
    ):
        self.num_image_embeds = num_image_embeds
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if self.image_token_id in (None, tokenizer.unk_token_id):
            raise ValueError(
                f"The tokenizer has no token {IMAGE_TOKEN!r}. Use the tokenizer of the VisualCLA checkpoint, or add "
                f"{IMAGE_START!r}, {IMAGE_END!r} and {IMAGE_TOKEN!r} with add_image_tokens and resize the embeddings."
            )
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "VisualCLAProcessor":
        """Open the processor of any VisualCLA folder: released, merged, web UI folder or transformers folder.

        Raises:
            FileNotFoundError: tokenizer, image processor or config.json are missing.
        """
        name, hub_kwargs = pretrained_model_name_or_path, hub_kwargs_of(kwargs)
        tokenizer = load_tokenizer(name, **hub_kwargs)
        template_file = cached_file(
            os.fspath(name), "chat_template.jinja", _raise_exceptions_for_missing_entries=False, **hub_kwargs
        )
        template = Path(template_file).read_text(encoding="utf-8") if template_file else tokenizer.chat_template
        if template == plain_template(CHAT_TEMPLATE):
            template = CHAT_TEMPLATE
        # What is generated in a batch stands behind the prompt: the released settings say "right", for training.
        tokenizer.padding_side = "left"
        return cls(
            load_image_processor(name, **hub_kwargs),
            tokenizer,
            chat_template=template,
            num_image_embeds=_num_image_embeds(name, hub_kwargs),
        )

    def with_tokenizer_of(self, adapter: Path) -> "VisualCLAProcessor":
        """This processor with the tokenizer that an adapter was trained with, as merging takes it; itself where that has none."""
        if not has_tokenizer(adapter):
            return self
        tokenizer = load_tokenizer(adapter)
        if IMAGE_TOKEN not in tokenizer.get_vocab():  # that of a text model under the adapter
            return self
        tokenizer.padding_side, tokenizer.model_max_length = "left", self.tokenizer.model_max_length
        return type(self)(self.image_processor, tokenizer, self.chat_template, self.num_image_embeds)

    def apply_chat_template(self, conversation, chat_template: str | None = None, **kwargs: Any):
        """As in transformers; text that spells `<img_token>` is kept as text and never taken for an image."""
        return super().apply_chat_template(_without_typed_image_tokens(conversation), chat_template, **kwargs)

    def __call__(self, images=None, text: str | list[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Prepare rows of text with images in them.

        Args:
            images: one image, a list of images in reading order over all rows, or one list per row. An image is whatever
                `pipelines.images.load_image` takes.
            text: one row or several; each `<img_token>` stands for one image.
            kwargs: for tokenizer and image processor (`return_tensors`, `padding`, ...). No special tokens are added: the chat
                template has written them.

        Returns:
            `input_ids`, `attention_mask` (B, T) and, with images, `pixel_values` (N, 3, S, S).

        Raises:
            ValueError: images and marks differ in number, or truncation would cut an image.
        """
        if text is None:
            raise ValueError("text is missing: VisualCLA's processor takes text with one '<img_token>' per image.")
        rows = [text] if isinstance(text, str) else list(text)
        flat_images = list(_flatten(images))
        marks = [row.count(IMAGE_TOKEN) for row in rows]
        if sum(marks) != len(flat_images):
            raise ValueError(
                f"{sum(marks)} image marks in the text but {len(flat_images)} images. Write {IMAGE_MARK.strip()!r} once per image "
                "(apply_chat_template does)."
            )
        pictures = [_rgb(image) for image in flat_images] or None
        if hasattr(ProcessorMixin, "replace_image_token"):
            return super().__call__(images=pictures, text=rows, **kwargs)
        return self._prepare(pictures, rows, **kwargs)

    def _prepare(self, pictures: list[Image.Image] | None, rows: list[str], **kwargs: Any) -> BatchFeature:
        """What `ProcessorMixin.__call__` does from transformers 5.23 on."""
        settings = self._merge_kwargs(VisualCLAProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        return_tensors = settings["text_kwargs"].pop("return_tensors", None)
        settings["text_kwargs"].pop("return_mm_token_type_ids", None)
        pixels = {} if pictures is None else dict(self.image_processor(pictures, **settings["images_kwargs"]))
        expanded = [row.replace(IMAGE_TOKEN, self.replace_image_token(pixels, 0)) for row in rows]
        inputs = self.tokenizer(expanded, **settings["text_kwargs"])
        self._check_special_mm_tokens(expanded, inputs, modalities=["image"])
        return BatchFeature({**inputs, **pixels}, tensor_type=return_tensors)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """What an image token of the text becomes; part of `ProcessorMixin.__call__`."""
        return IMAGE_TOKEN * self.num_image_embeds

    def _check_special_mm_tokens(self, text: list[str], text_inputs: BatchFeature, modalities: list[str]) -> None:
        for row, ids in zip(text, text_inputs["input_ids"], strict=True):
            if list(ids).count(self.image_token_id) != row.count(IMAGE_TOKEN):
                raise ValueError(
                    f"Truncating to max_length would cut an image of {self.num_image_embeds} tokens. Drop whole turns instead."
                )

    def _get_num_multimodal_tokens(self, image_sizes: list | None = None, **kwargs: Any) -> MultiModalData:
        """What images cost in a prompt, for serving engines.

        Args:
            image_sizes: (height, width) of each image; they all cost the same.
        """
        if image_sizes is None:
            return MultiModalData()
        num_images = len(image_sizes)
        return MultiModalData(num_image_tokens=[self.num_image_embeds] * num_images, num_image_patches=[1] * num_images)

    def preprocess_images(self, images: list, return_tensors: str | None = "pt"):
        """Images to (N, 3, S, S), RGB, normalised; alpha is dropped, not blended."""
        return self.image_processor([_rgb(image) for image in images], return_tensors=return_tensors)["pixel_values"]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]


def load_image_processor(name_or_path: str | os.PathLike, **hub_kwargs: Any) -> BaseImageProcessor:
    """The Pillow image processor that a checkpoint's `preprocessor_config.json` names, CLIP's when it names none.

    Raises:
        FileNotFoundError: there is no `preprocessor_config.json` (nor `processor_config.json`).
    """
    name = os.fspath(name_or_path)
    for subfolder, file_name in (
        ("vision", "preprocessor_config.json"),
        ("", "preprocessor_config.json"),
        ("", "processor_config.json"),
    ):
        path = Path(subfolder, file_name).as_posix()
        if cached_file(name, path, _raise_exceptions_for_missing_entries=False, **hub_kwargs):
            settings, _ = CLIPImageProcessorPil.get_image_processor_dict(name, subfolder=subfolder, **hub_kwargs)
            kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
            processor_class = SiglipImageProcessorPil if kind.startswith("Siglip") else CLIPImageProcessorPil
            return processor_class.from_dict(settings)
    raise FileNotFoundError(
        f"{name!r} holds no 'preprocessor_config.json', so how its vision encoder wants pictures is not known. Copy the file of "
        "the vision encoder into it."
    )


def _num_image_embeds(name: str | os.PathLike, hub_kwargs: dict[str, Any]) -> int:
    """From the processor's own settings where it lies by itself, else from the model's configuration."""
    try:
        return load_config(name, **hub_kwargs).num_image_embeds
    except FileNotFoundError:
        path = cached_file(os.fspath(name), "processor_config.json", _raise_exceptions_for_missing_entries=False, **hub_kwargs)
        settings = read_json(Path(path)) if path else {}
        if "num_image_embeds" not in settings:
            raise
        return settings["num_image_embeds"]


def _rgb(image: Any) -> Image.Image:
    return (image if isinstance(image, Image.Image) else load_image(image)).convert("RGB")


def _flatten(images) -> Iterable:
    if images is None:
        return
    if isinstance(images, (list, tuple)):
        for image in images:
            yield from _flatten(image)
    else:
        yield images


def _without_typed_image_tokens(conversation):
    """The same conversation with every typed `<img_token>` broken in two, which reads the same and is no placeholder."""
    if isinstance(conversation, str):
        return conversation.replace(IMAGE_TOKEN, f"{IMAGE_TOKEN[:4]} {IMAGE_TOKEN[4:]}")
    if isinstance(conversation, (list, tuple)):
        return [_without_typed_image_tokens(item) for item in conversation]
    if isinstance(conversation, dict):
        texts = {key: _without_typed_image_tokens(conversation[key]) for key in ("content", "text") if key in conversation}
        return {**conversation, **texts}
    return conversation
