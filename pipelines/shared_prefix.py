"""Several prompts of one batch that begin alike: what they have in common up to their pictures is computed once, for all of them.

shared = share_prefixes(model, pipeline, prompts, generation_config)
if shared is not None:
    model.generate(ids_behind_it, attention_mask=..., past_key_values=shared.cache)

Where prefix_cache.py goes on from an earlier prompt, this shares among prompts that are answered at once.

Legend: B prompts, U <= B different prefixes, P ids of the longest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from .base import ImageSpan, VisionPipeline
from .embedder import PreparedPrompt
from .prefix_cache import position_keys, takes, why_cold


@dataclass(frozen=True)
class SharedPrefixes:
    """What the prompts of a batch begin with.

    Attributes:
        lengths: ids of each prompt that are in the cache.
        ids: (B, P), padded on the left.
        mask: (B, P), 1 where an id is no padding.
        cache: keys and values of those positions, B rows.
    """

    lengths: list[int]
    ids: torch.Tensor
    mask: torch.Tensor
    cache: DynamicCache


@torch.inference_mode()
def share_prefixes(
    model: PreTrainedModel, pipeline: VisionPipeline, prompts: Sequence[PreparedPrompt], config: GenerationConfig
) -> SharedPrefixes | None:
    """Compute each different prefix once, up to the last picture of its prompt.

    Args:
        model: with whatever the pipeline attaches.
        pipeline: the family.
        prompts: of the batch.
        config: of the generation; its padding id pads.

    Returns:
        None where nothing would be saved: no two prompts show the same pictures after the same words; or where this is not certain to
        be right (`why_cold`): then the prompts are computed whole.
    """
    if pipeline.embedding_width is None or not all(prompt.image_spans for prompt in prompts):
        return None
    ends = [prompt.image_spans[-1].end for prompt in prompts]
    keys = [
        position_keys(prompt.input_ids[0].tolist(), prompt.image_spans, pipeline)[:end].tobytes()
        for prompt, end in zip(prompts, ends, strict=True)
    ]
    unique = list(dict.fromkeys(keys))
    if len(unique) == len(prompts) or any(_why_not(model, pipeline, prompt, config) for prompt in prompts):
        return None
    firsts = [keys.index(key) for key in unique]
    longest = max(ends[row] for row in firsts)
    device = prompts[0].input_ids.device
    ids = torch.full((len(unique), longest), config.pad_token_id, device=device)
    mask = torch.zeros_like(ids)
    spans = []
    for row, first in enumerate(firsts):
        padding = longest - ends[first]
        ids[row, padding:], mask[row, padding:] = prompts[first].input_ids[0, : ends[first]], 1
        spans.append([ImageSpan(span.start + padding, span.length, span.image) for span in prompts[first].image_spans])
    given = pipeline.model_inputs(model, ids, mask, spans, [prompts[first].features for first in firsts])
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    model.get_decoder()(**given, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    rows = torch.tensor([unique.index(key) for key in keys], device=device)
    return SharedPrefixes(ends, ids[rows], mask[rows], _rows(cache, rows, model))


def _why_not(model: PreTrainedModel, pipeline: VisionPipeline, prompt: PreparedPrompt, config: GenerationConfig) -> str:
    ids, kwargs = prompt.input_ids, {"generation_config": config, "attention_mask": torch.ones_like(prompt.input_ids)}
    if found := why_cold(model, ids, pipeline, prompt.image_spans, prompt.features, kwargs):
        return found
    if pipeline.looks_at(prompt.image_spans, ids.shape[1]):
        return "positions that look at pictures elsewhere"
    return "" if takes(model.get_decoder(), {"position_ids": None}) else "a decoder that is not told positions"


def _rows(cache: DynamicCache, rows: torch.Tensor, model: PreTrainedModel) -> DynamicCache:
    """A cache with these rows of another."""
    chosen = DynamicCache(config=model.config.get_text_config(decoder=True))
    for index, layer in enumerate(cache.layers):
        chosen.update(layer.keys[rows.to(layer.keys.device)], layer.values[rows.to(layer.values.device)], index)
    return chosen
