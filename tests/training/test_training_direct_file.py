"""Whatever the disk can do, the file holds what was written, and a full disk is told."""

import errno
import os

import pytest

from training.merge import direct_file
from training.merge.direct_file import DirectFile

PIECES = [b"head", os.urandom(3 * 4096), b"", os.urandom(direct_file.BUFFER_BYTES + 5), b"tail"]


class Disk:
    """A file on a disk that refuses some writes."""

    def __init__(self, file, refuse):
        self.file, self.refuse = file, refuse

    def write(self, content):
        if error := self.refuse(len(content)):
            raise OSError(error, os.strerror(error))
        return self.file.write(content[: max(1, len(content) // 2)])  # as much as the disk likes to take

    def __getattr__(self, name):
        return getattr(self.file, name)


def write(file, refuse=lambda num_bytes: 0):
    file._file = Disk(file._file, refuse)
    for piece in PIECES:
        assert file.write(memoryview(piece)) == len(piece)
    file.close()


def test_pieces_of_any_size_arrive(tmp_path):
    write(DirectFile(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"".join(PIECES)


def test_a_system_without_direct_writes_writes_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    write(DirectFile(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"".join(PIECES)


def test_a_disk_that_refuses_direct_writes_gets_plain_ones(tmp_path):
    file = DirectFile(tmp_path / "file")
    if not file._is_direct:
        pytest.skip("no direct writes here")
    write(file, lambda num_bytes: errno.EINVAL if file._is_direct else 0)
    assert (tmp_path / "file").read_bytes() == b"".join(PIECES)


def test_a_full_disk_is_told(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        write(DirectFile(tmp_path / "file"), lambda num_bytes: errno.ENOSPC)
