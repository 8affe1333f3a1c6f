"""Will a model fit: what its weights take in memory, against what there is.

Counts from the headers of the weight files, before anything is loaded.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from .weights import tensor_headers

GIB = 2**30
OVERHEAD = 1.1
"""Factor for activations, buffers and the allocator on top of the weights."""

_QUANTISED_BYTES = {8: 1.0, 4: 0.5625}  # per weight; 4 bits carry one fp32 scale per 64 weights


@dataclass(frozen=True)
class MemoryNeed:
    """What loading takes.

    Attributes:
        needed_bytes: estimate for weights and overhead.
        available_bytes: free on the device now.
        device: "cpu" or "cuda".
    """

    needed_bytes: int
    available_bytes: int
    device: str

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.available_bytes


def weights_bytes(folder: str | os.PathLike, bits: int = 16) -> int:
    """What the weights of one folder take in memory.

    Args:
        folder: holds weight files; not searched deeper.
        bits: 32 or 16 for all weights; 8 or 4 for the matrices of a language model's layers, the rest then staying in 16 bits.
    """
    total = 0.0
    for name, header in tensor_headers(Path(folder)).items():
        is_matrix_of_layer = len(header.shape) == 2 and ".layers." in name
        if bits in _QUANTISED_BYTES:
            per_weight = _QUANTISED_BYTES[bits] if is_matrix_of_layer else 2
        else:
            per_weight = bits // 8
        total += header.num_elements * per_weight
    return int(total)


def available_bytes(device: str = "cpu") -> int:
    """Memory that is free on a device now."""
    if device == "cuda":
        return sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
    import psutil

    return psutil.virtual_memory().available


def memory_need(folders: list[str | os.PathLike], bits: int, device: str) -> MemoryNeed:
    """What a model of these folders (language model, eyes, adapter) takes, and what there is.

    The folders' own subfolders (`vision/`, `text_encoder/`, `vision_encoder/`) are counted too; eyes are never quantised.
    """
    total = 0
    for folder in map(Path, folders):
        total += weights_bytes(folder, bits)
        total += sum(
            weights_bytes(folder / part, max(bits, 16) if part != "text_encoder" else bits)
            for part in ("vision", "vision_encoder", "text_encoder")
            if (folder / part).is_dir()
        )
    return MemoryNeed(int(total * OVERHEAD), available_bytes(device), device)


def check_memory(folders: list[str | os.PathLike], bits: int, device: str) -> None:
    """Refuse to begin what cannot end.

    Raises:
        MemoryError: more is needed than there is; says how much, and what would fit.
    """
    need = memory_need(folders, bits, device)
    if need.fits:
        return
    smaller = [other for other in (16, 8, 4) if other < bits and memory_need(folders, other, device).fits]
    flags = {16: "--dtype bfloat16", 8: "--load_in_8bit", 4: "--load_in_4bit"}
    advice = f"It would fit with {flags[smaller[0]]}." if smaller else "Close other programs, or take a smaller model."
    raise MemoryError(
        f"Loading in {bits} bits takes about {need.needed_bytes / GIB:.1f} GiB, but only {need.available_bytes / GIB:.1f} GiB are "
        f"free on {device}. {advice}"
    )
