"""OpenFlamingo's processor: conversations and pictures in, model inputs out.

A picture is one token, `<image>`. The prompt is Multimodal-GPT's (`chat_template.jinja`): blocks `### Image:`, `### Instruction:`,
`### Response:` behind the Alpaca sentence; OpenFlamingo's own few-shot prompts go through `__call__` as they are
(`<image>A red boat.<|endofchunk|><image>`).

The tokenizer is LLaMA's with three more tokens. The models were trained through transformers 4.28, where white space on both
sides of an added token is dropped and each stretch between two of them is encoded on its own, with a dummy prefix of its own.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import AddedToken, pre_tokenizers
from transformers import BatchFeature, PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.processing_utils import ProcessingKwargs

from ..images import load_image
from ..json_files import read_json
from ..tokenization import build_tokenizer

END_OF_CHUNK, IMAGE_TOKEN, PAD_TOKEN = "<|endofchunk|>", "<image>", "<PAD>"
NUM_NEW_TOKENS = 3
"""What they add to LLaMA's vocabulary."""

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


class OpenFlamingoProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = {"text_kwargs": {"padding": False, "add_special_tokens": False}}


class OpenFlamingoProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template of OpenFlamingo and Multimodal-GPT.

    Args:
        image_processor: CLIP's.
        tokenizer: has the token `<image>`; see `load_tokenizer`.
        chat_template: Multimodal-GPT's when absent.

    Example:
        >>> messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        >>> text = processor.apply_chat_template(messages, add_generation_prompt=True)
        >>> inputs = processor(images=[image], text=text, return_tensors="pt")
    """

    image_processor_class = "CLIPImageProcessorPil"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, image_processor=None, tokenizer=None, chat_template: str | None = None, **kwargs: Any):
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if self.image_token_id in (None, tokenizer.unk_token_id):
            raise ValueError(
                f"The tokenizer has no token {IMAGE_TOKEN!r}. Use pipelines.open_flamingo.load_tokenizer on the language model's "
                "folder."
            )
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "OpenFlamingoProcessor":
        """Open the processor of a folder that this project has written.

        Raises:
            FileNotFoundError: it holds no tokenizer.
        """
        folder = Path(pretrained_model_name_or_path)
        template = folder / "chat_template.jinja"
        return cls(
            load_image_processor(folder),
            load_tokenizer(folder),
            chat_template=template.read_text(encoding="utf-8") if template.is_file() else None,
        )

    def apply_chat_template(self, conversation, chat_template: str | None = None, **kwargs: Any):
        """As in transformers; text that spells `<image>` is kept as text and never taken for a picture."""
        return super().apply_chat_template(_without_typed_image_tokens(conversation), chat_template, **kwargs)

    def __call__(self, images=None, text: str | list[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Prepare rows of text with pictures in them.

        Args:
            images: one picture, a list in reading order over all rows, or one list per row. A picture is whatever
                `pipelines.images.load_image` takes.
            text: one row or several; each `<image>` stands for one picture.
            kwargs: for the tokenizer (`return_tensors`, `padding`, ...). No special tokens are added: the chat template has written
                them.

        Returns:
            `input_ids`, `attention_mask` (B, T) and, with pictures, `pixel_values` (N, 3, S, S).

        Raises:
            ValueError: pictures and `<image>` differ in number, also after truncation.
        """
        if text is None:
            raise ValueError("text is missing: OpenFlamingo's processor takes text with one '<image>' per picture.")
        rows = [text] if isinstance(text, str) else list(text)
        flat_images = list(_flatten(images))
        settings = self._merge_kwargs(OpenFlamingoProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        return_tensors = settings["text_kwargs"].pop("return_tensors", None)
        settings["text_kwargs"].pop("return_mm_token_type_ids", None)
        inputs = dict(self.tokenizer(rows, **settings["text_kwargs"]))
        num_marks = sum(ids.count(self.image_token_id) for ids in inputs["input_ids"])
        if num_marks != len(flat_images):
            raise ValueError(
                f"{num_marks} image tokens in the text but {len(flat_images)} images. Write {IMAGE_TOKEN!r} once per image "
                "(apply_chat_template does), and drop whole turns where a text is too long."
            )
        if flat_images:
            inputs["pixel_values"] = self.preprocess_images(flat_images, return_tensors=return_tensors)
        return BatchFeature(inputs, tensor_type=return_tensors)

    def preprocess_images(self, images: list, return_tensors: str | None = "pt"):
        """Pictures to (N, 3, S, S), RGB, normalised; alpha is dropped, not blended."""
        rgb = [(image if isinstance(image, Image.Image) else load_image(image)).convert("RGB") for image in images]
        return self.image_processor(rgb, return_tensors=return_tensors)["pixel_values"]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]


def load_tokenizer(folder: str | os.PathLike) -> PreTrainedTokenizerBase:
    """LLaMA's tokenizer with OpenFlamingo's tokens, as it was trained with; one that has them is taken as it is.

    Raises:
        FileNotFoundError: there is neither `tokenizer.model` nor `tokenizer.json`.
    """
    folder = Path(folder)
    has_json = (folder / "tokenizer.json").is_file()
    if has_json and f'"{IMAGE_TOKEN}"' in (folder / "tokenizer.json").read_text(encoding="utf-8"):
        return PreTrainedTokenizerFast.from_pretrained(folder)
    if (folder / "tokenizer.model").is_file():
        tokenizer = build_tokenizer(folder)
    elif has_json:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        if isinstance(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.Metaspace):
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    else:
        raise FileNotFoundError(
            f"{str(folder)!r} holds no tokenizer: neither 'tokenizer.json' nor 'tokenizer.model'. Copy the tokenizer files of the "
            "language model into it."
        )
    known = tokenizer.get_vocab()
    tokens = [token for token in (END_OF_CHUNK, IMAGE_TOKEN) if token not in known]
    if tokenizer.pad_token is None:
        tokens.append(PAD_TOKEN)
        tokenizer.pad_token = PAD_TOKEN
    tokenizer.add_tokens([AddedToken(token, lstrip=True, rstrip=True, special=True) for token in tokens], special_tokens=True)
    return tokenizer


def load_image_processor(folder: Path, image_size_px: int = 224) -> CLIPImageProcessorPil:
    """The Pillow image processor that a folder describes; where it describes none, CLIP's own for that size."""
    for place in (folder / "vision", folder):
        for file_name in ("preprocessor_config.json", "processor_config.json"):
            if settings := read_json(place / file_name):
                return CLIPImageProcessorPil.from_dict(settings.get("image_processor", settings))
    side = {"height": image_size_px, "width": image_size_px}
    return CLIPImageProcessorPil(size={"shortest_edge": image_size_px}, crop_size=side)


def _flatten(images) -> Iterable:
    if images is None:
        return
    if isinstance(images, (list, tuple)):
        for image in images:
            yield from _flatten(image)
    else:
        yield images


def _without_typed_image_tokens(conversation):
    """The same conversation with every typed `<image>` broken in two, which reads the same and is no picture."""
    if isinstance(conversation, str):
        return conversation.replace(IMAGE_TOKEN, f"{IMAGE_TOKEN[:-1]} {IMAGE_TOKEN[-1]}")
    if isinstance(conversation, (list, tuple)):
        return [_without_typed_image_tokens(item) for item in conversation]
    if isinstance(conversation, dict):
        texts = {key: _without_typed_image_tokens(conversation[key]) for key in ("content", "text") if key in conversation}
        return {**conversation, **texts}
    return conversation
