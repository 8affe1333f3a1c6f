"""VisualCLA: a vision encoder, a resampler, a projector and a language model.

    image  --vision_model-->  (N, P, Dv)  --visual_resampler-->  (N, Q, Dv)  --image_projection_layer-->  (N, Q, Dt)

and those Q embeddings stand in the prompt where the image's Q placeholders `<img_token>` stood.

Legend of shapes:
    N   images in the call            B   rows of text in the batch
    P   tokens of the vision encoder  T   tokens of a row
    Q   queries of the resampler      H   attention heads
    Dv  vision width                  Dt  text width

`VisualCLAVisionModel` is vision encoder, resampler and projector, for a language model that somebody else runs. `VisualCLAModel`
has a language model without its head beside them; `VisualCLAForConditionalGeneration` is that and the head. The resampler is in
`modeling_visual_resampler.py`, how checkpoints are found and read in `checkpoint.py`, what a prompt looks like in
`processing_visualcla.py`.

In memory a weight is called as transformers composes models (`model.vision_model.*`, `model.text_model.*`, `lm_head.*`); in files
it has the released checkpoints' names (`vision_model.*`, `text_model.model.*`, `text_model.lm_head.*`). `stored_name` goes from
the one to the other, `_checkpoint_conversion_mapping` back.

Source: Visual-Chinese-LLaMA-Alpaca (https://github.com/airaria/Visual-Chinese-LLaMA-Alpaca), models/visualcla/
modeling_visualcla.py, commit 6f93ced, Apache-2.0. The same numbers, and the same parameters under the same names in files. What
differs: placeholders are filled by a mask instead of spliced (several images, rows without images, more rows than images); labels
work after the vocabulary has grown; attention maps can be had; `eval()` is in force after loading.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput

from ..embedder import execution_device
from .configuration_visualcla import AUTO_MAP, AUTO_MODULE, AUTO_SOURCE, VisualCLAConfig
from .language_model import RELEASED_ENCODER, empty_language_model, language_model_parts, memory_names
from .modeling_visual_resampler import VisualResampler


@dataclass
class VisualCLAVisionOutput(ModelOutput):
    """What becomes of images.

    Attributes:
        last_hidden_state: (N, Q, Dv), the resampler's output ((N, P, Dv) without a resampler).
        pooler_output: (N, Q, Dt), the image features: ready to stand in the prompt.
        image_tokens: (N, P, Dv), the vision encoder's output after its last layer norm; what the resampler looks at.
        attentions: one (N, H, Q, Q + P) per resampler layer, rows sum to 1; the keys are the queries, then the image tokens.
            Only on request.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    image_tokens: torch.Tensor | None = None
    attentions: tuple[torch.Tensor, ...] | None = None

    @property
    def image_features(self) -> torch.Tensor | None:
        """`pooler_output`."""
        return self.pooler_output


class VisualCLAPreTrainedModel(PreTrainedModel):
    config_class = VisualCLAConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _no_split_modules = ["ResamplerLayer", "CLIPEncoderLayer", "SiglipEncoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    # Buffers that old checkpoints carry and today's models compute.
    _keys_to_ignore_on_load_unexpected = [r"\.position_ids$", r"rotary_emb\.inv_freq$"]

    open_folder: ClassVar[Callable[..., PreTrainedModel]]
    """What opens a folder of any layout as this class; `checkpoint.py`, which knows the layouts, puts it here."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs) -> "VisualCLAPreTrainedModel":
        """Open a model of any layout; see `load_eyes` and `load_pretrained` in `checkpoint.py`."""
        return cls.open_folder(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_checkpoint(cls, folder: str | os.PathLike | None, config: VisualCLAConfig, **kwargs) -> "VisualCLAPreTrainedModel":
        """transformers' own loading, for a folder that holds all of this class's weights under their stored names."""
        return super().from_pretrained(folder, config=config, key_mapping=cls.memory_names(config), **kwargs)

    @classmethod
    def memory_names(cls, config: VisualCLAConfig) -> dict[str, str]:
        """How names begin in files (patterns) to how they begin in memory; the first that fits a name counts."""
        raise NotImplementedError

    def _name_weights(self) -> None:
        """Lets transformers write, and PEFT read, weights under their stored names."""
        self._checkpoint_conversion_mapping = self.memory_names(self.config)
        self._weight_conversions = [WeightRenaming(*names) for names in self._checkpoint_conversion_mapping.items()]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, VisualResampler):
            nn.init.normal_(module.query_embeddding, std=std)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class VisualCLAImageEncoder(VisualCLAPreTrainedModel):
    """What `VisualCLAVisionModel` and `VisualCLAModel` share: vision encoder, resampler (where the configuration has one),
    projector, and the way through them."""

    def __init__(self, config: VisualCLAConfig):
        super().__init__(config)
        vision_width = config.vision_config.hidden_size
        self.vision_model = AutoModel.from_config(config.vision_config)
        config.vision_config = self.vision_config = self.vision_model.config
        self.visual_resampler = None
        if config.use_visual_resampler:
            if config.visual_resampler_config.hidden_size != vision_width:
                raise ValueError(
                    f"The resampler's hidden_size {config.visual_resampler_config.hidden_size} differs from the vision "
                    f"encoder's {vision_width}; they must be equal."
                )
            self.visual_resampler = VisualResampler(config.visual_resampler_config)
        self.image_projection_layer = nn.Linear(vision_width, config.text_config.hidden_size)

    def image_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, P, Dv): the vision encoder's output after its last layer norm, what the resampler looks at. See `encode_images`."""
        side_px = self.config.vision_config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[-2:] != (side_px, side_px):
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, but the vision encoder takes "
                f"(images, 3, {side_px}, {side_px}). Use the image processor of this model."
            )
        pixel_values = pixel_values.to(execution_device(self.vision_model), self.vision_model.dtype)
        tokens = self.vision_model(pixel_values).last_hidden_state  # (N, P, Dv)
        if self.config.vision_config.model_type == "clip_vision_model":
            # CLIP normalises the CLS token only; VisualCLA was trained on all of them. SigLIP has done it already.
            tokens = self.vision_model.post_layernorm(tokens)
        return tokens

    def encode_images(self, pixel_values: torch.Tensor, output_attentions: bool = False) -> VisualCLAVisionOutput:
        """Pixels to image features, with everything on the way.

        Args:
            pixel_values: (N, 3, S, S) with S = `config.vision_config.image_size`, RGB, normalised by the model's image
                processor (CLIP: mean 0, standard deviation 1).
            output_attentions: also return what the queries looked at.

        Raises:
            ValueError: `pixel_values` has another rank, or S differs.
        """
        image_tokens = self.image_tokens(pixel_values)
        projector = self.image_projection_layer
        # It may be kept apart: `move_projector`.
        image_tokens = image_tokens.to(execution_device(projector), projector.weight.dtype)
        hidden_states, attentions = image_tokens, None
        if self.visual_resampler is not None:
            hidden_states, attentions = self.visual_resampler(image_tokens, output_attentions)  # (N, Q, Dv)
        return VisualCLAVisionOutput(
            last_hidden_state=hidden_states,
            pooler_output=projector(hidden_states),  # (N, Q, Dt)
            image_tokens=image_tokens,
            attentions=attentions,
        )

    def get_image_features(
        self, pixel_values: torch.Tensor, return_dict: bool = True, output_attentions: bool = False
    ) -> VisualCLAVisionOutput | tuple[torch.Tensor, ...]:
        """Encode images into the language model's embedding space.

        Args:
            pixel_values: (N, 3, S, S), see `encode_images`.
            return_dict: False gives a tuple.

        Returns:
            Image features as `pooler_output`, (N, Q, Dt), on the projector's device, in its dtype.
        """
        output = self.encode_images(pixel_values, output_attentions)
        return output if return_dict else output.to_tuple()


class VisualCLAVisionModel(VisualCLAImageEncoder):
    """Vision encoder, resampler (where the configuration has one) and projector.

    Loads from the `vision/` folder of a model, or from a whole checkpoint, whose language model it leaves unread.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected = [
        *VisualCLAPreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^text_model\.",
    ]

    @classmethod
    def memory_names(cls, config: VisualCLAConfig) -> dict[str, str]:
        return {RELEASED_ENCODER: "vision_model."}

    def __init__(self, config: VisualCLAConfig):
        super().__init__(config)
        self._name_weights()
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, output_attentions: bool = False) -> VisualCLAVisionOutput:
        """See `encode_images`."""
        return self.encode_images(pixel_values, output_attentions)


class VisualCLAModel(VisualCLAImageEncoder):
    """Vision encoder, resampler, projector and a language model without its head.

    Args:
        config: the configuration.
        text_model: a language model without head that is loaded already; made from `config.text_config` when absent.
    """

    main_input_name = "input_ids"
    _keys_to_ignore_on_load_unexpected = [
        *VisualCLAPreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^text_model\.(lm_head|embed_out|output)\.",
    ]

    @classmethod
    def memory_names(cls, config: VisualCLAConfig) -> dict[str, str]:
        backbone, _ = language_model_parts(empty_language_model(config.text_config))
        return {RELEASED_ENCODER: "vision_model.", rf"^text_model\.{backbone}\.": "text_model."}

    def __init__(self, config: VisualCLAConfig, text_model: PreTrainedModel | None = None):
        super().__init__(config)
        self.text_model = AutoModel.from_config(config.text_config) if text_model is None else text_model
        # One home for the sizes of the vocabulary: what a resize changes in the one is changed in the other.
        config.text_config = self.text_model.config
        if text_model is None:
            self._name_weights()
            self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def get_decoder(self) -> nn.Module:
        return self.text_model

    def set_decoder(self, decoder: nn.Module) -> None:
        self.text_model = decoder

    def get_placeholder_mask(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, image_features: torch.Tensor
    ) -> torch.Tensor:
        """Where the image features belong.

        Args:
            input_ids: (B, T), or None: then the placeholders are found by their embedding.
            inputs_embeds: (B, T, Dt).
            image_features: (N, Q, Dt).

        Returns:
            (B, T, 1), True at every `<img_token>`.

        Raises:
            ValueError: the number of placeholders is not N x Q, or `config.image_token_id` is not known.
        """
        image_token_id = self.config.image_token_id
        if image_token_id is None:
            raise ValueError(
                "config.image_token_id is None, so an image has no place in the prompt. Load the model together with its "
                "tokenizer (pipelines.visualcla.load_pretrained), or set it to tokenizer.convert_tokens_to_ids('<img_token>')."
            )
        if input_ids is None:
            token = torch.tensor(image_token_id, device=inputs_embeds.device)
            mask = (inputs_embeds == self.get_input_embeddings()(token)).all(-1)
        else:
            mask = input_ids == image_token_id
        num_images, num_image_embeds = image_features.shape[:2]
        num_placeholders = int(mask.sum())
        if num_placeholders != num_images * num_image_embeds:
            raise ValueError(
                f"{num_placeholders} image tokens in the prompt but {num_images * num_image_embeds} image features "
                f"({num_images} image{'s' * (num_images != 1)} x {num_image_embeds}). Was the prompt cut inside an image, or "
                "an image given without its mark?"
            )
        return mask.unsqueeze(-1)

    def embed(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, T, Dt): the language model's input, image features where the placeholders stand. See `forward`."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is None or not len(pixel_values):
            return inputs_embeds
        image_features = self.encode_images(pixel_values).pooler_output.to(inputs_embeds.device, inputs_embeds.dtype)
        mask = self.get_placeholder_mask(input_ids, inputs_embeds, image_features)
        return inputs_embeds.masked_scatter(mask.to(inputs_embeds.device), image_features)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> ModelOutput | tuple:
        """As `VisualCLAForConditionalGeneration.forward`; returns what the language model without its head returns: the hidden
        states (B, T, Dt) first."""
        return self.text_model(inputs_embeds=self.embed(input_ids, pixel_values, inputs_embeds), **kwargs)


class VisualCLAForConditionalGeneration(VisualCLAPreTrainedModel, GenerationMixin):
    """A `VisualCLAModel` and the language model's head: text with images in it goes in, text comes out.

    Args:
        config: the configuration.
        text_model: the causal language model whose parts `model` and the head are, loaded already (on its own device, quantised,
            with LoRA ...); made from `config.text_config` when absent.

    Attributes:
        processor: the `VisualCLAProcessor` that belongs to the weights; set by whoever loads them.
    """

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """As in transformers, with the file that `trust_remote_code` asks for."""
        self.config.auto_map = AUTO_MAP
        super().save_pretrained(save_directory, **kwargs)
        Path(save_directory, f"{AUTO_MODULE}.py").write_text(AUTO_SOURCE, encoding="utf-8")

    @classmethod
    def memory_names(cls, config: VisualCLAConfig) -> dict[str, str]:
        return memory_names(*language_model_parts(empty_language_model(config.text_config)))

    def __init__(self, config: VisualCLAConfig, text_model: PreTrainedModel | None = None):
        super().__init__(config)
        language_model = AutoModelForCausalLM.from_config(config.text_config) if text_model is None else text_model
        self.model = VisualCLAModel(config, getattr(language_model, language_model_parts(language_model)[0]))
        self.text_model = language_model
        self.processor = None
        if text_model is None:
            self.post_init()
        else:
            self.all_tied_weights_keys = self.get_expanded_tied_weights_keys()

    def __setattr__(self, name: str, value: object) -> None:
        """Setting `text_model` puts a language model in the place of the one that is there."""
        if name != "text_model":
            super().__setattr__(name, value)
            return
        self.backbone_name, self.head_name = language_model_parts(value)
        self.model.set_decoder(getattr(value, self.backbone_name))
        self.lm_head = getattr(value, self.head_name)
        # Not a submodule: its parts are, and no weight may be there twice.
        self.__dict__["_language_model"] = value
        self._tied_weights_keys = self._names_here(value._tied_weights_keys or {})
        self._name_weights()

    @property
    def text_model(self) -> PreTrainedModel:
        """The causal language model by itself: the same weights, its own forward and saving. Resize by this model's method."""
        language_model = self.__dict__["_language_model"]
        # What was put in the place of a part since (an adapter's layer, a sharded module) is in force there too.
        setattr(language_model, self.backbone_name, self.model.text_model)
        setattr(language_model, self.head_name, self.lm_head)
        return language_model

    @property
    def vision_model(self) -> PreTrainedModel:
        return self.model.vision_model

    @property
    def visual_resampler(self) -> nn.Module | None:
        return self.model.visual_resampler

    @property
    def image_projection_layer(self) -> nn.Module:
        return self.model.image_projection_layer

    def _name_weights(self) -> None:
        self._checkpoint_conversion_mapping = memory_names(self.backbone_name, self.head_name)
        self._weight_conversions = [WeightRenaming(*names) for names in self._checkpoint_conversion_mapping.items()]

    def stored_name(self, name: str) -> str:
        """A weight's name in memory to its name in files.

        >>> model.stored_name("model.text_model.layers.0.mlp.up_proj.weight")
        'text_model.model.layers.0.mlp.up_proj.weight'
        """
        if name.startswith("lm_head."):
            return f"text_model.{self.head_name}.{name.removeprefix('lm_head.')}"
        if name.startswith("model.text_model."):
            return f"text_model.{self.backbone_name}.{name.removeprefix('model.text_model.')}"
        return name.removeprefix("model.")

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def get_decoder(self) -> nn.Module:
        return self.model.get_decoder()

    def set_decoder(self, decoder: nn.Module) -> None:
        self.model.set_decoder(decoder)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Whether head and embeddings are one matrix is up to the language model."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        return self._names_here(self.text_model.get_expanded_tied_weights_keys())

    def _names_here(self, tied: dict[str, str]) -> dict[str, str]:
        """Pairs of tied weights under the language model's names to the same under this model's."""
        names = {f"text_model.{name}": f"text_model.{source}" for name, source in tied.items()}
        for pattern, name_here in memory_names(self.backbone_name, self.head_name).items():
            names = {re.sub(pattern, name_here, name): re.sub(pattern, name_here, source) for name, source in names.items()}
        return names

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        """Resize the vocabulary of the language model; its own configuration decides about tying."""
        language_model = self.text_model
        embeddings = language_model.resize_token_embeddings(*args, **kwargs)
        self.lm_head = language_model.get_output_embeddings()
        return embeddings

    def encode_images(self, pixel_values: torch.Tensor, output_attentions: bool = False) -> VisualCLAVisionOutput:
        """See `VisualCLAModel.encode_images`."""
        return self.model.encode_images(pixel_values, output_attentions)

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> VisualCLAVisionOutput | tuple[torch.Tensor, ...]:
        """See `VisualCLAModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_placeholder_mask(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, image_features: torch.Tensor
    ) -> torch.Tensor:
        """See `VisualCLAModel.get_placeholder_mask`."""
        return self.model.get_placeholder_mask(input_ids, inputs_embeds, image_features)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Run text with images in it through the language model.

        Args:
            input_ids: (B, T) with Q placeholders `<img_token>` per image; exactly one of this and `inputs_embeds`.
            pixel_values: (N, 3, S, S), the images of all rows in reading order: row by row, left to right. None: no images.
            attention_mask: (B, T), 1 = attend, 0 = padding; either side may be padded.
            labels: (B, T), -100 = not supervised. With them no cache is built, unless `use_cache` asks for it.
            logits_to_keep: compute logits of the last so many positions only, 0 = all.

        Returns:
            The language model's own output; `loss` when `labels` were given.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds`; images and placeholders do not match.
        """
        inputs_embeds = self.model.embed(input_ids, pixel_values, inputs_embeds)
        if labels is not None:
            kwargs.setdefault("use_cache", False)
        # Not every language model, and not every version of transformers, knows these.
        given = {"position_ids": position_ids, "past_key_values": past_key_values}
        kwargs |= {name: value for name, value in given.items() if value is not None}
        return self.text_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        use_cache: bool = True,
        **kwargs,
    ) -> dict:
        """Images belong to the first pass; afterwards they are in the cache."""
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            use_cache=use_cache,
            **kwargs,
        )
        if is_first_iteration or not use_cache:
            model_inputs["pixel_values"] = pixel_values
        return model_inputs
