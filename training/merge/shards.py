"""Weight files, planned before they are written and written front to back: safetensors, and the pickles of the original.

Headers come first, as all sizes are known; a file has its name only once it is whole and on the disk.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from pipelines.checkpoints.offsets import StoredTensor
from pipelines.checkpoints.stored_tensors import read_header
from pipelines.checkpoints.torch_pickles import pickle_head
from pipelines.weights import SAFETENSORS_DTYPES

from .direct_file import DirectFile
from .products import Product

_DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
_ALIGNMENT_BYTES = 64  # as PyTorch aligns them
_FIRST_DAY_OF_ZIP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Shard:
    """A weight file to be.

    Attributes:
        path: below the output folder, with forward slashes.
        products: the file's own names to tensors, in the order they are written.
        link: an existing file with exactly this content, to be linked instead of written.
    """

    path: str
    products: dict[str, Product]
    link: Path | None = None

    @property
    def num_bytes(self) -> int:
        """Of its tensors."""
        return sum(product.num_bytes for product in self.products.values())


def pack(products: dict[str, Product], folder: str, suffix: str, max_bytes: int, links: bool = False) -> list[Shard]:
    """Distribute tensors over files of at most `max_bytes` (one tensor may be larger), named as transformers names them.

    Args:
        products: the file's own names to tensors.
        folder: below the output folder, "" for itself.
        suffix: ".safetensors" or ".bin".
        max_bytes: of tensors per file.
        links: link files that hold exactly such tensors already.
    """
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    shares: list[tuple[dict[str, Product], Path | None]] = []
    for file, share in _linkable(products).items() if links else ():
        shares.append((share, file))
        products = {name: product for name, product in products.items() if name not in share}
    used = max_bytes + 1
    for name, product in products.items():
        if used + product.num_bytes > max_bytes:
            shares.append(({}, None))
            used = 0
        shares[-1][0][name] = product
        used += product.num_bytes
    # A linked file keeps its own format.
    names = [
        f"{stem}-{number:05}-of-{len(shares):05}{suffix}" if len(shares) > 1 else f"{stem}{suffix}"
        for number in range(1, len(shares) + 1)
    ]
    return [
        Shard(f"{folder}/{name}" if folder else name, share, link) for name, (share, link) in zip(names, shares, strict=True)
    ]


def index_of(shards: list[Shard]) -> dict[str, bytes]:
    """The index files that belong to shards, by path; none for a single file."""
    indices = {}
    folders = dict.fromkeys(shard.path.rpartition("/")[0] for shard in shards)
    for folder in folders:
        own = [shard for shard in shards if shard.path.rpartition("/")[0] == folder]
        if len(own) < 2:
            continue
        stem, suffix = own[0].path.rpartition("/")[2].split("-")[0], Path(own[0].path).suffix
        weight_map = {name: shard.path.rpartition("/")[2] for shard in own for name in shard.products}
        index = {"metadata": {"total_size": sum(shard.num_bytes for shard in own)}, "weight_map": weight_map}
        path = f"{stem}{suffix}.index.json"
        indices[f"{folder}/{path}" if folder else path] = json.dumps(index, indent=2).encode()
    return indices


def _linkable(products: dict[str, Product]) -> dict[Path, dict[str, Product]]:
    """Safetensors files of which every tensor is wanted, unchanged and under its own name."""
    files = {p.source.file for p in products.values() if isinstance(p.source, StoredTensor)}
    linkable = {}
    for file in sorted(file for file in files if file.suffix == ".safetensors"):
        header = read_header(file)
        if all(name in products and products[name] == Product(tensor, tensor.dtype) for name, tensor in header.items()):
            linkable[file] = {name: products[name] for name in header}
    return linkable


class ShardWriter:
    """Writes one shard: `begin` a tensor, `write` its bytes, and after the last `finish`.

    Args:
        path: of the finished file; until then it is `path` with ".part".
        shard: what goes in.
    """

    def __init__(self, path: Path, shard: Shard):
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.file = DirectFile(self.part)
        self._start(shard)

    def _start(self, shard: Shard) -> None:
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, product in shard.products.items():
            header[name] = {
                "dtype": _DTYPE_NAMES[product.dtype],
                "shape": list(product.shape),
                "data_offsets": [end, end := end + product.num_bytes],
            }
        content = json.dumps(header, separators=(",", ":")).encode()
        content += b" " * (-len(content) % 8)
        self.file.write(len(content).to_bytes(8, "little") + content)

    def begin(self, name: str, product: Product) -> None:
        """The next tensor starts."""

    def write(self, content: memoryview) -> None:
        self.file.write(content)

    def finish(self) -> None:
        """Bring the file to the disk and give it its name."""
        self.file.close()
        self.part.replace(self.path)

    def abandon(self) -> None:
        """Leave nothing."""
        self.file.abandon()
        self.part.unlink(missing_ok=True)


class PickleShardWriter(ShardWriter):
    """As `ShardWriter`, in PyTorch's zip container."""

    def _start(self, shard: Shard) -> None:
        self.archive = zipfile.ZipFile(self.file, "w", zipfile.ZIP_STORED)
        self.entry = None
        self.keys = {name: str(index) for index, name in enumerate(shard.products)}
        tensors = {name: (product.dtype, product.shape) for name, product in shard.products.items()}
        self._open("archive/data.pkl", pickle_head(tensors))
        self._open("archive/byteorder", b"little")

    def begin(self, name: str, product: Product) -> None:
        self._open(f"archive/data/{self.keys[name]}", num_bytes=product.num_bytes)

    def write(self, content: memoryview) -> None:
        self.entry.write(content)

    def finish(self) -> None:
        self._open("archive/version", b"3\n")
        self.entry.close()
        self.archive.close()
        super().finish()

    def abandon(self) -> None:
        # Closing the archive would write its end; the file goes anyway.
        self.archive._writing = False
        self.archive.fp = io.BytesIO()
        super().abandon()

    def _open(self, name: str, content: bytes = b"", num_bytes: int | None = None) -> None:
        if self.entry is not None:
            self.entry.close()
        info = zipfile.ZipInfo(name, _FIRST_DAY_OF_ZIP)
        info.file_size = len(content) if num_bytes is None else num_bytes
        zip64_bytes = 20 if info.file_size * 1.05 > zipfile.ZIP64_LIMIT else 0
        start = self.archive.start_dir + 30 + len(name) + zip64_bytes + 4
        padding = -start % _ALIGNMENT_BYTES
        info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
        self.entry = self.archive.open(info, "w")
        self.entry.write(content)


def open_writer(path: Path, shard: Shard) -> ShardWriter:
    return (PickleShardWriter if path.suffix == ".bin" else ShardWriter)(path, shard)
