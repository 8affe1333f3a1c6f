"""SHA-256 of the weight files, made while they are read for the merge: no byte is read twice for it."""

import hashlib
from pathlib import Path
from typing import Any

from pipelines.checkpoints.offsets import read_into

BUFFER_BYTES = 8 * 2**20


class InputHashes:
    """SHA-256 of files, made of the blocks that pass by; what does not pass by is read."""

    def __init__(self):
        self._hashes: dict[Path, Any] = {}
        self._positions: dict[Path, int] = {}
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def feed(self, file: Path, offset: int, content: memoryview) -> None:
        """Bytes of a file that were just read."""
        digest = self._hashes.setdefault(file, hashlib.sha256())
        position = self._positions.setdefault(file, 0)
        if offset > position:
            self._read(file, position, offset)
        elif offset < position:
            return
        digest.update(content)
        self._positions[file] = offset + len(content)

    def finish(self, files: list[Path]) -> dict[Path, str]:
        """The hashes of whole files, in this order."""
        for file in files:
            self._hashes.setdefault(file, hashlib.sha256())
            self._read(file, self._positions.get(file, 0), file.stat().st_size)
        return {file: self._hashes[file].hexdigest() for file in files}

    def _read(self, file: Path, start: int, stop: int) -> None:
        with open(file, "rb", buffering=0) as handle:
            for offset in range(start, stop, BUFFER_BYTES):
                view = self._buffer[: min(BUFFER_BYTES, stop - offset)]
                read_into(handle, offset, view)
                self._hashes[file].update(view)
        self._positions[file] = stop
