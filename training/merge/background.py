"""Two ends of a pipeline of threads: items made ahead, and items worked off behind."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


class InBackground:
    """Iterates in a thread, some items ahead."""

    def __init__(self, items: Iterator, depth: int):
        self._items = items
        self._queue: queue.Queue = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "InBackground":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def __iter__(self) -> Iterator:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            for item in self._items:
                if self._stopped.is_set():
                    return
                self._queue.put(item)
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)


class Sink:
    """Hands items to a function in a thread, some items behind; `put` and leaving raise what the function raised.

    Args:
        work: called with every item.
        close: called at the end, with whether all went well.
        depth: how many items may wait.
    """

    def __init__(self, work: Callable[[Any], None], close: Callable[[bool], None], depth: int):
        self._work, self._close = work, close
        self._queue: queue.Queue = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Sink":
        self._thread.start()
        return self

    def put(self, item: Any) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._queue.put(None)
        self._thread.join()
        self._close(kind is None and self._error is None)
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = error
