"""Which pictures are in force inside a language model, and the hooks through which the gated layers stand in it.

Legend of shapes: see `modeling_open_flamingo.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, get_ident

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..embedder import execution_device


def visible_images(is_image: torch.Tensor) -> torch.Tensor:
    """Which picture each token looks at, as OpenFlamingo v1 was trained: a token looks at the *next* picture.

    Args:
        is_image: (B, T), True at every `<image>`.

    Returns:
        (B, T), 1 is a row's first picture. `<image>` number t looks at picture t; any other token that t of them stand before
        looks at picture t + 1. Behind the last `<image>` there is none: 0. So text behind a picture knows it by self-attention alone.
    """
    seen = is_image.long().cumsum(-1)
    number = seen + ~is_image
    return number * (number <= seen[:, -1:])


@dataclass(frozen=True)
class PromptImages:
    """The pictures of a batch of prompts.

    Attributes:
        input_ids: (B, T), all ids of the prompts.
        visible: (B, T), see `visible_images`.
        states: (B, N, K, Dv); rows with fewer than N pictures end in zeros.
        counts: (B, 1), how many pictures each row has.
    """

    input_ids: torch.Tensor
    visible: torch.Tensor
    states: torch.Tensor
    counts: torch.Tensor

    def expand(self, rows: int) -> "PromptImages":
        """The same for `rows` = k x B, as beams and several returned sequences repeat every row."""
        if rows == len(self.input_ids):
            return self
        if rows % len(self.input_ids):
            raise ValueError(
                f"{rows} rows go through the language model, but pictures are set for {len(self.input_ids)}; beams and returned "
                "sequences make it a multiple."
            )
        repeats = rows // len(self.input_ids)
        fields = (self.input_ids, self.visible, self.states, self.counts)
        return PromptImages(*(tensor.repeat_interleave(repeats, 0) for tensor in fields))

    def visible_from(self, start: int, length: int) -> torch.Tensor | None:
        """(B, length): what the tokens from `start` on look at; None when they all stand behind the prompt."""
        visible = self.visible[:, start : start + length]
        return F.pad(visible, (0, length - visible.shape[1])) if visible.shape[1] else None


_attaching = Lock()


class ImageConditioning:
    """Which pictures are in force, and the hooks through which the gated layers stand in a language model.

    The pictures hold for one batch of prompts: for its prefill (whole, in chunks, or behind a cached prefix) and for every token
    generated after it, in the thread that put them in force. A forward pass of other ids from the beginning is another prompt: it
    gets no pictures, and none after it.

    Args:
        layers: the gated layers, by the number of the decoder layer they stand before.
    """

    def __init__(self, layers: nn.ModuleDict):
        self.layers = layers
        self._attached: dict[int, tuple[int, list]] = {}  # by decoder: how many ask for it, the hooks
        self._prompts: dict[int, PromptImages] = {}  # by thread
        self._passes: dict[
            int | None, tuple[PromptImages, torch.Tensor | None] | None
        ] = {}  # by thread; the last with gradients

    def show(self, input_ids: torch.Tensor, is_image: torch.Tensor, states: Sequence[torch.Tensor | None]) -> None:
        """Put pictures in force.

        Args:
            input_ids: (B, T).
            is_image: (B, T), True where a picture stands.
            states: for each row (N of this row, K, Dv), or None for a row without pictures.
        """
        self.clear()
        given = [found for found in states if found is not None and len(found)]
        if not given:
            return
        counts = [0 if found is None else len(found) for found in states]
        padded = given[0].new_zeros(len(counts), max(counts), *given[0].shape[1:])
        for row, found in enumerate(states):
            if counts[row]:
                padded[row, : counts[row]] = found
        device = input_ids.device
        self._prompts[get_ident()] = PromptImages(
            input_ids, visible_images(is_image), padded.to(device), torch.tensor(counts, device=device).unsqueeze(1)
        )

    def clear(self) -> None:
        """No picture is in force: the gated layers do nothing at all, as the original runs text."""
        self._prompts.pop(get_ident(), None)
        self._passes.pop(get_ident(), None)

    @property
    def is_empty(self) -> bool:
        return get_ident() not in self._prompts

    @contextmanager
    def attach(self, language_model: PreTrainedModel) -> Iterator[None]:
        """Put the gated layers into a language model; the last context that is left takes them off. See `put_into`."""
        self.put_into(language_model)
        try:
            yield
        finally:
            self.clear()
            self._take_off(language_model.get_decoder())

    def put_into(self, language_model: PreTrainedModel) -> None:
        """Put the gated layers into a language model for as long as it lives.

        Raises:
            ValueError: the language model has another width or fewer layers.
        """
        decoder = language_model.get_decoder()
        with _attaching:
            count, hooks = self._attached.get(id(decoder)) or (0, self._hook(decoder))
            self._attached[id(decoder)] = (count + 1, hooks)

    def _take_off(self, decoder: PreTrainedModel) -> None:
        with _attaching:
            count, hooks = self._attached.pop(id(decoder))
            if count > 1:
                self._attached[id(decoder)] = (count - 1, hooks)
            else:
                for hook in hooks:
                    hook.remove()

    def _hook(self, decoder: PreTrainedModel) -> list:
        width = next(iter(self.layers.values())).attn.norm.weight.shape[0]
        if width != decoder.config.hidden_size:
            raise ValueError(
                f"The gated layers have width {width}, but the language model's width is {decoder.config.hidden_size}: they "
                "belong to another language model."
            )
        last = max(map(int, self.layers))
        if last >= len(decoder.layers):
            raise ValueError(
                f"A gated layer stands before decoder layer {last}, but the language model has {len(decoder.layers)} layers: they "
                "belong to another language model."
            )
        hooks = [decoder.register_forward_pre_hook(self._begin_pass, with_kwargs=True)]
        for index in self.layers:
            hook = self._before_layer(index)
            hooks.append(decoder.layers[int(index)].register_forward_pre_hook(hook, with_kwargs=True))
        return hooks

    def _begin_pass(self, decoder: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before a forward pass: which of its tokens look at which picture."""
        self._set_pass(None)
        if self.is_empty:
            return
        input_ids = args[0] if args else kwargs.get("input_ids")
        rows, length = (kwargs["inputs_embeds"] if input_ids is None else input_ids).shape[:2]
        cache = kwargs.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())
        prompt = self._prompts[get_ident()].expand(rows)
        expected = prompt.input_ids[:, start : start + length]
        if input_ids is not None and not torch.equal(input_ids[:, : expected.shape[1]], expected.to(input_ids.device)):
            self.clear()
            return
        self._set_pass((prompt, prompt.visible_from(start, length)))

    def _set_pass(self, value: tuple[PromptImages, torch.Tensor | None] | None) -> None:
        if value is None:
            self._passes.pop(get_ident(), None)
        else:
            self._passes[get_ident()] = value
        if torch.is_grad_enabled():
            self._passes[None] = value  # a backward pass that recomputes activations does so in a thread of its own

    def _before_layer(self, index: str):
        def hook(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            block = self.layers[index]  # looked up each time: PEFT puts wrappers in their places
            current = self._passes.get(get_ident(), self._passes.get(None) if torch.is_grad_enabled() else None)
            if current is None:
                return None
            prompt, visible = current
            hidden_states = args[0] if args else kwargs["hidden_states"]
            device, dtype = hidden_states.device, block.attn_gate.dtype
            if execution_device(block) != device:
                block.to(device)
            counts = prompt.counts.to(device)
            visible = None if visible is None else visible.to(device)
            new = block(hidden_states.to(dtype), prompt.states.to(device, dtype), visible, counts).to(hidden_states.dtype)
            new = torch.where(counts.unsqueeze(-1) > 0, new, hidden_states)  # rows without pictures stay as they are
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        return hook
