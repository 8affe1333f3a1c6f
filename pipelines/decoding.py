"""What stands between a model and the tokens that are taken of it: checks and penalties of scores, and tokens as they come."""

import queue
import threading
from collections.abc import Iterator

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria
from transformers.generation import BaseStreamer


class FiniteScores(LogitsProcessor):
    """Stops a model whose numbers are broken: greedily it would answer with nothing, sampling would fail in the middle."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(scores.amax(-1)).all():
            raise ValueError(
                "The model's scores are not finite (inf or NaN): its weights are damaged, or too large for their precision. Load it "
                "with --dtype bfloat16 or float32; if that does not help, copy its weights again."
            )
        return scores


class ReplyPenalties(LogitsProcessor):
    """Repetition penalties that see BOS and the reply, never the prompt: what generation from embeddings alone does, and with it
    the originals of every family that puts embeddings in the prompt."""

    def __init__(self, processors: LogitsProcessorList, bos_token_id: int | None, prompt_length: int):
        self.processors = processors
        self.bos_token_id = bos_token_id
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        reply = input_ids[:, self.prompt_length :]
        if self.bos_token_id is not None:
            reply = torch.cat([reply.new_full((len(reply), 1), self.bos_token_id), reply], dim=1)
        return self.processors(reply, scores)


class TokenQueue(BaseStreamer, StoppingCriteria):
    """Carries new tokens from the generating thread to an iterator, and the wish to stop the other way."""

    def __init__(self):
        self._queue: queue.Queue = queue.Queue()
        self._has_seen_prompt = False
        self._stopped = threading.Event()

    def put(self, value: torch.Tensor) -> None:
        if self._has_seen_prompt:
            for token in value.flatten().tolist():
                self._queue.put(token)
        self._has_seen_prompt = True

    def end(self) -> None:
        self._queue.put(None)

    def give(self, answer: list[int]) -> None:
        """A whole answer at once."""
        for token in answer:
            self._queue.put(token)
        self.end()

    def fail(self, error: BaseException) -> None:
        self._queue.put(error)

    def stop(self) -> None:
        self._stopped.set()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return torch.full((len(input_ids),), self._stopped.is_set(), device=input_ids.device, dtype=torch.bool)

    def __iter__(self) -> Iterator[int]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
