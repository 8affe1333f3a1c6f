"""A vision model and a language model as one: text with pictures in it goes in, text comes out.

    pixel_values  --vision_model-->  (N, Q, Dt)  --into the Q placeholders of each picture-->  language_model  -->  lm_head

Legend of shapes: N images, Q embeddings per image, B rows, T tokens of a row, Dt width of the language model.

A headless `CompositeModel` under a `CompositeForConditionalGeneration`, as transformers builds its own.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import ModelOutput

from ..embedder import execution_device


@dataclass
class VisionOutput(ModelOutput):
    """What a vision model returns.

    Attributes:
        pooler_output: (N, Q, Dt), the image features, ready to stand in the prompt.
        last_hidden_state: (N, P, Dv), the vision encoder's output after its last layer norm.
    """

    pooler_output: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


class CompositePreTrainedModel(PreTrainedModel):
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _no_split_modules = ["CLIPEncoderLayer", "Blip2EncoderLayer", "Blip2QFormerLayer", "AbstractorLayer", "LlamaDecoderLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = getattr(self.config, "initializer_range", 0.02)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class CompositeVisionModel(CompositePreTrainedModel):
    """Base of the families' vision models: pixels to embeddings of a language model."""

    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def encode(self, pixel_values: torch.Tensor) -> VisionOutput:
        raise NotImplementedError

    def forward(self, pixel_values: torch.Tensor) -> VisionOutput:
        """Encode images.

        Args:
            pixel_values: (N, 3, S, S) with S = `config.vision_config.image_size`, RGB, CLIP-normalised.

        Raises:
            ValueError: `pixel_values` has another rank, or S differs.
        """
        side_px = self.config.vision_config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[-2:] != (side_px, side_px):
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, but the vision encoder takes (images, 3, {side_px}, "
                f"{side_px}). Use the image processor of this model."
            )
        weight = next(self.encoder.parameters())
        return self.encode(pixel_values.to(execution_device(self.encoder), weight.dtype))


class CompositeModel(CompositePreTrainedModel):
    """Vision model and language model without a head.

    Args:
        config: the configuration.
        vision_model: one that is loaded already; made from the configuration when absent.
        language_model: a decoder that is loaded already (on its own device, quantised, with LoRA ...); likewise.
    """

    vision_class: type[CompositeVisionModel]

    def __init__(self, config, vision_model: nn.Module | None = None, language_model: nn.Module | None = None):
        super().__init__(config)
        self.vision_model = self.vision_class(config) if vision_model is None else vision_model
        self.language_model = AutoModel.from_config(config.text_config) if language_model is None else language_model
        config.text_config = self.language_model.config  # one home for the sizes of the vocabulary
        if vision_model is None and language_model is None:
            self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_decoder(self) -> nn.Module:
        return self.language_model

    def get_image_features(self, pixel_values: torch.Tensor, return_dict: bool = True) -> VisionOutput | tuple:
        """Encode images into the language model's embedding space; see `CompositeVisionModel.forward`."""
        output = self.vision_model(pixel_values)
        return output if return_dict else output.to_tuple()

    def get_placeholder_mask(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, image_features: torch.Tensor
    ) -> torch.Tensor:
        """(B, T, 1), True at every placeholder.

        Raises:
            ValueError: the number of placeholders is not N x Q.
        """
        if input_ids is None:
            token = torch.tensor(self.config.image_token_id, device=inputs_embeds.device)
            mask = (inputs_embeds == self.get_input_embeddings()(token)).all(-1)
        else:
            mask = input_ids == self.config.image_token_id
        num_images, num_image_embeds = image_features.shape[:2]
        if int(mask.sum()) != num_images * num_image_embeds:
            raise ValueError(
                f"{int(mask.sum())} image tokens in the prompt but {num_images * num_image_embeds} image features ({num_images} "
                f"images x {num_image_embeds}). Was the prompt cut inside an image, or an image given without its mark?"
            )
        return mask.unsqueeze(-1)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast | tuple:
        """Run text with images in it through the decoder.

        Args:
            input_ids: (B, T) with Q placeholders per image; exactly one of this and `inputs_embeds`.
            pixel_values: (N, 3, S, S), the images of all rows in reading order. None: no images.
            kwargs: for the language model.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds`; images and placeholders do not match.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is not None and len(pixel_values):
            features = self.get_image_features(pixel_values).pooler_output.to(inputs_embeds.device, inputs_embeds.dtype)
            mask = self.get_placeholder_mask(input_ids, inputs_embeds, features)
            inputs_embeds = inputs_embeds.masked_scatter(mask.to(inputs_embeds.device), features)
        return self.language_model(inputs_embeds=inputs_embeds, **kwargs)


class CompositeForConditionalGeneration(CompositePreTrainedModel, GenerationMixin):
    """The whole model.

    Args:
        config: the configuration.
        vision_model: a loaded vision model.
        language_model: a loaded causal language model, whose decoder and head are used.
    """

    model_class: type[CompositeModel]
    main_input_name = "input_ids"
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config, vision_model: nn.Module | None = None, language_model: PreTrainedModel | None = None):
        super().__init__(config)
        if language_model is None:
            self.model = self.model_class(config)
            text = config.text_config
            self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
            self.post_init()
        else:
            self.model = self.model_class(config, vision_model, language_model.get_decoder())
            self.lm_head = language_model.get_output_embeddings()
            self.generation_config = language_model.generation_config

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

    def get_image_features(self, pixel_values: torch.Tensor, return_dict: bool = True) -> VisionOutput | tuple:
        """See `CompositeModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, return_dict)

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
        """See `CompositeModel.forward`.

        Args:
            attention_mask: (B, T), 1 = attend, 0 = padding; either side may be padded.
            labels: (B, T), -100 = not supervised. With them no cache is built, unless `use_cache` asks for it.
            logits_to_keep: compute logits of the last so many positions only, 0 = all.
        """
        if labels is not None:
            kwargs.setdefault("use_cache", False)
        kwargs.pop("return_dict", None)
        outputs = self.model(
            input_ids,
            pixel_values,
            inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
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
        inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, use_cache=use_cache, **kwargs
        )
        if is_first_iteration or not use_cache:
            inputs["pixel_values"] = pixel_values
        return inputs


def compose(model_class: type[CompositeForConditionalGeneration], vision_model, language_model, name: str):
    """A vision model and a loaded language model as one model, sharing their weights.

    Raises:
        ValueError: the vision model was made for a language model of another width.
    """
    config = vision_model.config
    given, expected = config.text_config.hidden_size, language_model.config.get_text_config().hidden_size
    if given != expected:
        raise ValueError(
            f"{name}: the projection gives embeddings of width {given}, but the language model's width is {expected}: they belong "
            "to different language models (4096 is a 7B, 5120 a 13B). Give the matching pair."
        )
    config.text_config = language_model.config
    model = model_class(config, vision_model, language_model)
    vision_model.to(language_model.get_input_embeddings().weight.device)
    return model.eval()


def load_language_model(config, state: dict[str, torch.Tensor], **kwargs) -> PreTrainedModel:
    """A causal language model from tensors under its own names, quantised or dispatched on the way as transformers does it.

    Raises:
        ImportError: bitsandbytes is asked for and missing.
    """
    try:
        return AutoModelForCausalLM.from_config(config) if not state else _from_state(config, state, kwargs)
    except ImportError as error:
        if "quantization_config" in kwargs:
            raise ImportError(f"8-bit and 4-bit loading needs bitsandbytes: pip install bitsandbytes. ({error})") from error
        raise


def _from_state(config, state: dict[str, torch.Tensor], kwargs) -> PreTrainedModel:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(None, config=config, state_dict=state, **kwargs)
