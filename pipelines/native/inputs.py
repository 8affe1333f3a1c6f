"""What a model of transformers takes beside the ids: where, how precise, and what it works out from the ids of pictures.

Legend: B rows, T ids of a row, N pictures.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from ..embedder import embedding_device


def takes_pictures(model: Any) -> bool:
    names = inspect.signature(model.forward).parameters
    return any("pixel" in name or "image" in name for name in names)


def placed(given: dict[str, Any], model: Any) -> dict[str, Any]:
    """Where the model wants them, and as precise; numbers and lists of them as they are."""
    device, dtype = embedding_device(model), _dtype(model)

    def put(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, dtype if value.is_floating_point() else None)
        return [put(each) for each in value] if isinstance(value, list) else value

    return {name: put(value) for name, value in given.items()}


def rope_positions(model: Any, input_ids: Tensor, types: Tensor | None, grids: Tensor | None) -> Tensor:
    """(A, B, T): positions of time, height and width, or of as many axes as the model turns by; it is told how far text behind the
    pictures lags."""
    if grids is None:
        model.rope_deltas = input_ids.new_zeros(len(input_ids), 1)
        axes = (getattr(model.config.get_text_config(), "rope_parameters", None) or {}).get("mrope_section") or (1, 1, 1)
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand(len(axes), len(input_ids), -1)
    mask = torch.ones_like(input_ids)
    positions, model.rope_deltas = model.get_rope_index(
        input_ids,
        image_grid_thw=grids.to(input_ids.device),
        attention_mask=mask,
        mm_token_type_ids=types.to(input_ids.device),
    )
    return positions


def _dtype(model: Any) -> torch.dtype:
    return next((each.dtype for each in model.parameters() if each.is_floating_point()), model.dtype)


def cross_attention_mask(input_ids: Tensor, image_token_id: int, tiles: Tensor) -> Tensor:
    """(B, T, N, tiles): which ids look at which picture, by transformers' own rule."""
    from transformers.models.mllama import processing_mllama as mllama

    found = [mllama.get_cross_attention_token_mask(ids, image_token_id) for ids in input_ids.tolist()]
    counts = [[int(count) for count in row] for row in tiles.sum(-1).tolist()]
    dense = mllama.convert_sparse_cross_attention_mask_to_dense(found, counts, tiles.shape[-1], input_ids.shape[1])
    return torch.from_numpy(dense)
