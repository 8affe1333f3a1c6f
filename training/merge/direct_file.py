"""A file written front to back past the page cache, where the system can: a copy into that cache costs more than the disk."""

import contextlib
import errno
import mmap
import os
from pathlib import Path

BUFFER_BYTES = 16 * 2**20


class DirectFile:
    """A new file. It cannot seek; what `write` takes may wait in a buffer until `close`.

    Args:
        path: of the file; an old one is replaced.
    """

    def __init__(self, path: Path):
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by close or abandon
        self._buffer = mmap.mmap(-1, BUFFER_BYTES)  # begins on a page, as direct writes ask for
        self._filled = 0
        self._is_direct = False
        self._set_direct(True)

    def write(self, content: bytes | memoryview) -> int:
        left = memoryview(content)
        while left:
            count = min(len(left), BUFFER_BYTES - self._filled)
            self._buffer[self._filled : self._filled + count] = left[:count]
            self._filled += count
            left = left[count:]
            if self._filled == BUFFER_BYTES:
                self._empty()
        return len(content)

    def flush(self) -> None:
        """Nothing: only `close` knows the last bytes, which are no whole page."""

    def close(self) -> None:
        """Bring everything to the disk."""
        self._set_direct(False)
        self._empty()
        os.fsync(self._file.fileno())
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _empty(self) -> None:
        left = memoryview(self._buffer)[: self._filled]
        while left:
            try:
                left = left[self._file.write(left) :]
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct:
                    raise
                self._set_direct(False)  # a disk that promised more than it keeps
        self._filled = 0

    def _set_direct(self, is_direct: bool) -> None:
        with contextlib.suppress(ImportError, AttributeError, OSError):  # not on every system, nor on every disk
            import fcntl

            fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_DIRECT if is_direct else 0)
            self._is_direct = is_direct
