"""transformers' Trainer where a batch may leave parts of a model unused."""

import torch
from transformers import Trainer

from ..data import IGNORED


class PartsTrainer(Trainer):
    """A batch without pictures, or one in which nothing is supervised, trains as well: with a loss that moves nothing."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if not (inputs["labels"] != IGNORED).any():
            loss = torch.zeros_like(loss)  # a mean over no labels is no number
        if not loss.requires_grad:
            loss = loss + sum(parameter.sum() * 0 for parameter in model.parameters() if parameter.requires_grad)
        return (loss, outputs) if return_outputs else loss
