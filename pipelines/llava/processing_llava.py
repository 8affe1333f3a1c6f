"""LLaVA's processor: conversations and images in, model inputs out, for every edition of the model.

In a text `<image>` stands for one picture, whatever its placeholder is: `<image>` in llava-hf's tokenizers, `<im_patch>` in v0's,
and elsewhere the byte 0, which every LLaMA vocabulary has and no text holds.
"""

from pathlib import Path

from PIL import Image
from transformers import LlavaConfig, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ..composite.processing import PLACEHOLDER, CompositeProcessor
from ..json_files import read_json
from ..tokenization import load_tokenizer, plain_template
from .configuration_llava import num_image_embeds

IMAGE_TOKEN = "<image>"
IMAGE_START, IMAGE_END = "<im_start>", "<im_end>"
CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


class LlavaChatProcessor(CompositeProcessor):
    """Image processor, tokenizer and chat template of a LLaVA model.

    Args:
        marks: what stands around a picture's placeholders: nothing, or `<im_start>` and `<im_end>` (v0).
        kwargs: see `CompositeProcessor`.

    Example:
        >>> messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        >>> text = processor.apply_chat_template(messages, add_generation_prompt=True)
        >>> inputs = processor(images=[image], text=text)
    """

    image_token = IMAGE_TOKEN

    def __init__(self, image_processor=None, tokenizer=None, marks: tuple[str, str] = ("", ""), **kwargs):
        self.marks = tuple(marks)
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def of(cls, tokenizer_folder: Path, config: LlavaConfig) -> "LlavaChatProcessor":
        """The processor of a configuration, with the tokenizer of a folder.

        Raises:
            FileNotFoundError: there is no tokenizer.
            ValueError: it does not know the placeholder.
        """
        tokenizer = load_tokenizer(tokenizer_folder)
        placeholder = tokenizer.convert_ids_to_tokens(config.image_token_id)
        if placeholder not in (IMAGE_TOKEN, "<im_patch>", PLACEHOLDER):
            raise ValueError(
                f"{str(tokenizer_folder)!r}: the token {config.image_token_id}, which stands for a picture, is {placeholder!r}. Use "
                "the tokenizer that was saved with the model."
            )
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token
        marks = (IMAGE_START, IMAGE_END) if getattr(config, "mm_use_im_start_end", False) else ("", "")
        default = default_template(config)
        template = _own_template(tokenizer_folder, tokenizer) or default
        if template == plain_template(default):  # as the web UI's layout has it
            template = default
        return cls(
            image_processor(tokenizer_folder, config),
            tokenizer,
            marks=marks,
            chat_template=template.replace(placeholder.join(marks), IMAGE_TOKEN),
            num_image_embeds=num_image_embeds(config),
            image_token_id=config.image_token_id,
        )

    def ids(self, text: str, with_bos: bool = True) -> list[int]:
        return super().ids(text.replace(IMAGE_TOKEN, IMAGE_TOKEN.join(self.marks)), with_bos)

    def native(self, config: LlavaConfig) -> LlavaProcessor:
        """The same as transformers' own class, for a folder that `AutoProcessor` opens: its placeholder is written in the text."""
        tokenizer = type(self.tokenizer)(
            tokenizer_object=self.tokenizer.backend_tokenizer, **{k: getattr(self.tokenizer, k) for k in _ROLES}
        )
        tokenizer.padding_side = "left"
        placeholder = tokenizer.convert_ids_to_tokens(config.image_token_id)
        tokenizer.add_tokens([placeholder], special_tokens=True)
        has_cls = config.vision_config.model_type == "clip_vision_model"
        return LlavaProcessor(
            self.image_processor,
            tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            chat_template=self.chat_template.replace(IMAGE_TOKEN, placeholder.join(self.marks)),
            image_token=placeholder,
            num_additional_image_tokens=int(has_cls),
        )


_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


def default_template(config: LlavaConfig) -> str:
    """The originals' prompt: v0's where marks stand around pictures, else v1's."""
    style = "v0" if getattr(config, "mm_use_im_start_end", False) else "v1"
    return f"{{%- set prompt_style = prompt_style | default('{style}', true) -%}}\n{CHAT_TEMPLATE}"


def image_processor(folder: Path, config: LlavaConfig) -> LlavaImageProcessorPil:
    """The image processor that a folder's settings name; where it has none, the originals'."""
    for settings in (
        read_json(folder / "vision" / "preprocessor_config.json"),
        read_json(folder / "preprocessor_config.json"),
        read_json(folder / "processor_config.json").get("image_processor", {}),
    ):
        if settings:
            return LlavaImageProcessorPil.from_dict(settings)
    side_px = config.vision_config.image_size
    return LlavaImageProcessorPil(
        size={"shortest_edge": side_px},
        crop_size={"height": side_px, "width": side_px},
        do_pad=getattr(config, "image_aspect_ratio", None) == "pad",
        resample=Image.Resampling.BICUBIC,
    )


def _own_template(folder: Path, tokenizer) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return read_json(folder / "chat_template.json").get("chat_template") or tokenizer.chat_template
