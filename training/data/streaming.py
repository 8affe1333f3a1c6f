"""Pictures and texts by the million: tar shards as WebDataset and img2dataset write them, read in order, shuffled in a buffer.

The position of a stream is exact and small: which shard, which byte, the state of the shuffle, and where in its shard each sample of
the buffer begins. `torchdata`'s StatefulDataLoader carries it from the worker processes and back; see docs/data.md.
"""

import random
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from .mixture import rng_of
from .rows import Row, check_row, or_error
from .shards import Sample, read_samples, row_of


class ShardStream(IterableDataset):
    """Endless rows from shards; every epoch in an order of its own.

    Shards are divided between processes, and those of a process between its workers, so no sample is seen twice in an epoch. What a
    row becomes is a function of (seed, epoch, sample); which row follows which depends on the number of processes and workers too,
    and a position fits the numbers it was saved with.

    Args:
        shards: at least one for each process and worker.
        seed: of the order.
        buffer_size: samples among which the next one is drawn; 1 keeps the order of the shards.
        rank, world_size: of this process.
        epochs: how often the shards are seen; None for ever.

    Raises:
        FileNotFoundError, ValueError: a shard is absent, or there are too few.
    """

    def __init__(
        self,
        shards: list[Path],
        seed: int,
        buffer_size: int = 1000,
        rank: int = 0,
        world_size: int = 1,
        epochs: int | None = None,
    ):
        if absent := [str(shard) for shard in shards if not shard.is_file()]:
            raise FileNotFoundError(f"shards that are not there: {absent[:3]}.")
        if len(shards) < world_size:
            raise ValueError(f"{len(shards)} shards for {world_size} processes; each needs one at least.")
        if buffer_size < 1:
            raise ValueError(f"buffer_size is {buffer_size}; it is at least 1.")
        self.shards, self.seed, self.buffer_size = shards, seed, buffer_size
        self.rank, self.world_size, self.epochs = rank, world_size, epochs
        self._position: dict[str, Any] | None = None
        self._reset()

    def _reset(self) -> None:
        self.epoch, self.shard, self.offset = 0, 0, 0
        self.buffer: list[Sample] = []
        self.rng: random.Random | None = None

    def state_dict(self) -> dict[str, Any]:
        """The position: what comes next is a function of it."""
        if self.rng is None:
            return self._position or {}
        version, numbers, gauss = self.rng.getstate()
        return {
            "readers": self._readers(),
            "epoch": self.epoch,
            "shard": self.shard,
            "offset": self.offset,
            "buffer": [(sample.shard, sample.offset) for sample in self.buffer],
            "rng": [version, list(numbers), gauss],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position; it is taken up by the next iterator."""
        self._position = dict(state) or None
        self.rng = None

    def __iter__(self) -> Iterator[Row]:
        worker, workers = self._reader()
        self._reset()
        self.rng = random.Random(f"{self.seed}/{worker}/{workers}")
        if self._position is not None:
            self._take_up(self._position)
            self._position = None
        while self.epochs is None or self.epoch < self.epochs:
            order = rng_of(self.seed, "shards", self.epoch).permutation(len(self.shards))[worker::workers]
            if not len(order):
                return
            while self.shard < len(order):
                number = int(order[self.shard])
                try:
                    for sample, after in read_samples(self.shards[number], number, self.offset):
                        self.offset = after
                        if len(self.buffer) < self.buffer_size:
                            self.buffer.append(sample)
                            continue
                        at = self.rng.randrange(self.buffer_size)
                        given, self.buffer[at] = self.buffer[at], sample
                        yield self._row(given)
                    self.shard, self.offset = self.shard + 1, 0
                except (tarfile.TarError, OSError, EOFError) as error:
                    self.shard, self.offset = self.shard + 1, 0
                    place = str(self.shards[number])
                    yield {
                        "messages": [],
                        "images": [],
                        "place": place,
                        "error": f"the rest of the shard cannot be read ({error}).",
                    }
            while self.buffer:  # every sample of an epoch comes before the next one begins
                yield self._row(self.buffer.pop(self.rng.randrange(len(self.buffer))))
            self.epoch, self.shard, self.offset = self.epoch + 1, 0, 0

    def _reader(self) -> tuple[int, int]:
        info = get_worker_info()
        workers = info.num_workers if info else 1
        return self.rank * workers + (info.id if info else 0), self.world_size * workers

    def _readers(self) -> int:
        return self._reader()[1]

    def _take_up(self, state: Mapping[str, Any]) -> None:
        if state["readers"] != self._readers():
            raise ValueError(
                f"The position was saved by {state['readers']} readers (processes x workers), now there are {self._readers()}. Go on with "
                "the same numbers."
            )
        self.epoch, self.shard, self.offset = state["epoch"], state["shard"], state["offset"]
        version, numbers, gauss = state["rng"]
        self.rng.setstate((version, tuple(numbers), gauss))
        self.buffer = [next(read_samples(self.shards[shard], shard, offset))[0] for shard, offset in state["buffer"]]

    def _row(self, sample: Sample) -> Row:
        place = f"{self.shards[sample.shard]}, {sample.key}"
        return or_error(place, lambda: check_row(row_of(sample.members), place))


def stateful_loader(rows: IterableDataset, seed: int = 0, **options: Any) -> Any:
    """A data loader whose `state_dict()` holds the position of every worker, of what was given out and not of what was read ahead."""
    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader

    # A generator of its own: without, each new iterator draws a number from the run's own random state.
    return StatefulDataLoader(rows, generator=torch.Generator().manual_seed(seed), **options)
