"""Ends a reply where the context ends. In a file of its own because it needs torch and transformers at import time."""

import torch
from transformers import LogitsProcessor


class EndOfContext(LogitsProcessor):
    """Lets nothing but the end-of-sequence token follow once the context is full.

    Args:
        max_length: tokens of prompt and reply together.
        eos_token_id: the token that ends a reply.
    """

    def __init__(self, max_length: int, eos_token_id: int):
        self.max_length = max_length
        self.eos_token_id = eos_token_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[-1] + 1 < self.max_length:
            return scores
        ended = torch.full_like(scores, float("-inf"))
        ended[:, self.eos_token_id] = 0
        return ended


class NeverBlind(LogitsProcessor):
    """Stops a generation that was begun without the pictures of its prompt.

    Args:
        waiting: see `generate.leave`.
    """

    def __init__(self, waiting):
        self.waiting = waiting

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self.waiting.is_taken:
            raise RuntimeError(
                "multimodal_vcla: the pictures of this prompt did not reach the model, because another extension has replaced its "
                "`generate`. Disable that one, or send text only."
            )
        return scores
