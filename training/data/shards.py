"""Tar shards as WebDataset and img2dataset write them: their samples, one after the other or by number.

Members of one sample stand together and share their name up to the first dot: `0001.jpg` with `0001.json` ({"caption"}, or a row's
{"messages"}) or `0001.txt`. Reading shards as an endless shuffled stream is streaming.py.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .files import Records
from .rows import Row, RowError, clean, make_row

PICTURES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("json", "txt")


class Sample(NamedTuple):
    """The members of one sample.

    Attributes:
        shard: number of its shard.
        offset: byte at which its first member begins.
        key: its members' common name.
        members: file ending -> bytes.
    """

    shard: int
    offset: int
    key: str
    members: dict[str, bytes]


def find_shards(path: Path) -> list[Path]:
    """The shards that a path with or without `*` names.

    Raises:
        FileNotFoundError: there are none.
    """
    found = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    if not found or not all(shard.is_file() for shard in found):
        raise FileNotFoundError(f"there are no shards {str(path)!r}.")
    return found


class ShardRecords(Records):
    """The samples of shards by number, as rows; where each begins is held in memory. What cannot be read of a shard is one of them."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.shards = find_shards(path)
        self.samples: list[tuple[int, int, str]] = []  # shard, byte, key
        self.broken: dict[int, str] = {}
        for number, shard in enumerate(self.shards):
            try:
                for sample, _ in read_samples(shard, number, reads=False):
                    self.samples.append((number, sample.offset, sample.key))
            except (tarfile.TarError, OSError, EOFError) as error:
                self.broken[len(self.samples)] = f"the rest of the shard cannot be read ({error})."
                self.samples.append((number, 0, ""))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Row:
        number, offset, _ = self.samples[index]
        try:
            if index in self.broken:
                raise ValueError(self.broken[index])
            sample, _ = next(read_samples(self.shards[number], number, offset))
            return row_of(sample.members)
        except (ValueError, tarfile.TarError, OSError, EOFError) as error:
            raise RowError(self.place(index), str(error)) from error

    def place(self, index: int) -> str:
        number, _, key = self.samples[index]
        return f"{self.shards[number]}, {key}" if key else str(self.shards[number])


def row_of(members: Mapping[str, bytes]) -> Row:
    """The members of a sample as a row: a caption is the answer to its picture alone.

    Raises:
        ValueError: there is no text, or no picture for a caption.
    """
    pictures = [data for ending, data in sorted(members.items()) if ending.rpartition(".")[2] in PICTURES]
    record = json.loads(members["json"].decode("utf-8")) if "json" in members else {}
    if not isinstance(record, dict):
        raise ValueError(f"its json holds {type(record).__name__}, not an object.")
    if "messages" in record:
        return {"messages": record["messages"], "images": pictures}
    caption = record.get("caption")
    if caption is None and "txt" in members:
        caption = members["txt"].decode("utf-8")
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(f"no caption: neither a txt nor a 'caption' in a json among {sorted(members)}.")
    if not pictures:
        raise ValueError(f"no picture ({', '.join(PICTURES)}) among {sorted(members)}.")
    return make_row([("", clean(caption))], pictures[:1])


def read_samples(path: Path, number: int, offset: int = 0, reads: bool = True) -> Iterator[tuple[Sample, int]]:
    """The samples of a shard from a byte on, each with the byte at which the next one begins; `reads` their members too.

    Raises:
        tarfile.TarError, OSError, EOFError: the shard is broken.
    """
    with path.open("rb") as file:
        file.seek(offset)
        # The reader takes what is left of the file for an archive; its offsets count from here.
        archive = tarfile.open(fileobj=_From(file, offset), mode="r:")  # noqa: SIM115
        key, begins, members = None, offset, {}
        for member in archive:
            archive.members = []  # it keeps every member it has met
            if not member.isfile():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            stem = f"{folder}/{stem}" if folder else stem
            if stem != key:
                if key is not None:
                    yield Sample(number, begins, key, members), offset + member.offset
                key, begins, members = stem, offset + member.offset, {}
            ending = ending.lower()
            if reads and ending.rpartition(".")[2] in (*PICTURES, *TEXTS):
                data = archive.extractfile(member).read()
                if len(data) != member.size:
                    raise tarfile.ReadError("it ends in the middle of a file")
                members[ending] = data
        file.seek(offset + archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends without an archive's end mark")
        if key is not None:
            yield Sample(number, begins, key, members), offset + archive.offset


class _From(io.RawIOBase):
    """A file from one of its bytes on."""

    def __init__(self, file: Any, start: int):
        self.file, self.start = file, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = self.file.seek(offset + self.start if whence == io.SEEK_SET else offset, whence)
        return position - self.start

    def tell(self) -> int:
        return self.file.tell() - self.start
