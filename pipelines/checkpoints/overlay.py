"""Adapters laid over a model, worked out from names and shapes alone: which weight each tensor of them changes, and how.

The one place where this is decided, for merging and for families that merge while they load. Every tensor must find its place and
every size must fit: an adapter that is half merged answers, and answers wrongly.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import torch

from .adapters import Adapter, check_targets
from .low_rank import LowRank, changed
from .offsets import StoredTensor
from .structure import LanguageModel

Tensor = StoredTensor | torch.Tensor


class Overlay:
    """A model's tensors, and what adapters do to them. The state between two adapters.

    Args:
        tensors: name to tensor, as stored or in memory.
        structure: of the language model among them; None where there is none.
        prefix: how the names of the language model's tensors begin here.

    Attributes:
        tensors: name to tensor: the model's, or a whole one that an adapter brought.
        changes: name to what LoRA adds to it, adapter by adapter.
        is_tied: whether embeddings and head are one matrix, which then stands under the embeddings' name only.
        unused: names of the language model's tensors that are no weight of it; they are left out.
    """

    def __init__(self, tensors: Mapping[str, Tensor], structure: LanguageModel | None, prefix: str = ""):
        self.tensors: dict[str, Tensor] = dict(tensors)
        self.changes: dict[str, tuple[LowRank, ...]] = {}
        self.embedding: str | None = None
        self.head: str | None = None
        self.adaptable, self.unused, self.is_tied = set(), [], False
        self._conv1d, self._names = set(), {}
        if structure is not None:
            self._take_structure(structure, prefix)

    def _take_structure(self, structure: LanguageModel, prefix: str) -> None:
        self.embedding, self.head = prefix + structure.embedding, prefix + structure.head
        self.adaptable = {prefix + name for name in structure.adaptable}
        self.unused = [prefix + name for name in structure.unused]
        self._conv1d = {prefix + name for name in structure.conv1d}
        self._names = {prefix + found: prefix + name for name, found in structure.names.items()}
        for name in self.unused:
            self.tensors.pop(name)
        # transformers opens a folder untied whose file has a head of its own, whatever its config.json says.
        head = self.tensors.get(self.head)
        self.is_tied = structure.is_tied and (head is None or _is_same(head, self.tensors[self.embedding]))
        if self.is_tied:
            self.tensors.pop(self.head, None)

    @property
    def num_rows(self) -> int:
        """Of the vocabulary."""
        return self.tensors[self.embedding].shape[0]

    def apply(
        self,
        adapter: Adapter,
        modules: Collection[str] = (),
        namings: Iterable[Callable[[str], str]] = (str,),
        places: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Lay one more adapter over the model.

        Args:
            adapter: its names are those of `tensors`.
            modules: beside the language model's, those that its `target_modules` may be about.
            namings: see `check_targets`.
            places: tensors that the model has a place for beside those that are there.

        Raises:
            ValueError: a tensor finds no place or does not fit, or something is missing; names it.
        """
        self._take_file_names(adapter)
        self._untie(adapter)
        self._replace(adapter, {**self.tensors, **(places or {})})
        check_targets(adapter, {*self.adaptable, *modules}, namings)
        if self.head is not None and not self.is_tied and self.tensors[self.head].shape[0] != self.num_rows:
            raise ValueError(
                f"The adapter {str(adapter.folder)!r} leaves {self.num_rows} rows in {self.embedding} but "
                f"{self.tensors[self.head].shape[0]} in {self.head}: it was saved without one of them, so the new tokens' rows "
                "are lost. Save both (modules_to_save), or train with ensure_weight_tying."
            )
        self._add_lora(adapter)

    def read(self, name: str) -> torch.Tensor:
        """A tensor as it becomes, the adapters merged in fp32, in its own dtype."""
        tensor = self.tensors[name]
        return changed(tensor.map() if isinstance(tensor, StoredTensor) else tensor, self.changes.get(name, ()))

    def _take_file_names(self, adapter: Adapter) -> None:
        """Adapters name modules, which transformers may call differently from the weights in files (GPT-NeoX)."""
        for found, name in self._names.items():
            if found in adapter.lora:
                adapter.lora[name] = adapter.lora.pop(found)
            if f"{found}.weight" in adapter.whole:
                adapter.whole[f"{name}.weight"] = adapter.whole.pop(f"{found}.weight")

    def _untie(self, adapter: Adapter) -> None:
        """An adapter that changes one of two tied matrices was trained with the other as it was (PEFT 2777)."""
        if not self.is_tied:
            return
        modules = {self.embedding.removesuffix(".weight"), self.head.removesuffix(".weight")}
        touches = {name for name in adapter.whole if name in (self.embedding, self.head)}
        touches |= {f"{module}.weight" for module in adapter.lora if module in modules}
        if not touches:
            return
        if adapter.ties and not any(module in adapter.lora for module in modules):
            adapter.whole.pop(self.head, None)
            return
        self.tensors[self.head] = self.tensors[self.embedding]
        self.is_tied = False

    def _replace(self, adapter: Adapter, places: Mapping[str, Tensor]) -> None:
        unmatched = [name for name in adapter.whole if name not in places]
        unmatched += [module for module in adapter.lora if f"{module}.weight" not in places]
        if unmatched:
            raise ValueError(
                f"{len(unmatched)} of {len(adapter.whole) + len(adapter.lora)} tensors and modules of the adapter "
                f"{str(adapter.folder)!r} have no place in the model, the first: {unmatched[:3]}. Was it made for another base?"
            )
        vocabulary = (self.embedding, self.head)
        for name, tensor in adapter.whole.items():
            expected = places[name].shape
            grows = name in vocabulary and tensor.shape[1:] == expected[1:]
            if tuple(tensor.shape) != tuple(expected) and not grows:
                raise ValueError(
                    f"The adapter {str(adapter.folder)!r} brings {name} of shape {tuple(tensor.shape)}, but the model's is "
                    f"{tuple(expected)}. Was it made for another base?"
                )
            if grows and tensor.shape[0] < expected[0]:
                raise ValueError(
                    f"The adapter {str(adapter.folder)!r} brings {name} with {tensor.shape[0]} rows, but the model has "
                    f"{expected[0]} already: a vocabulary does not shrink. Are the adapters in the order they were trained in?"
                )
            self.tensors[name] = tensor
            self.changes.pop(name, None)

    def _add_lora(self, adapter: Adapter) -> None:
        for module, lora in adapter.lora.items():
            name = f"{module}.weight"
            is_embedding = "lora_embedding_A" in lora.parts
            kind = "lora_embedding_" if is_embedding else "lora_"
            a, b = lora.parts[f"{kind}A"], lora.parts[f"{kind}B"]
            change = LowRank(a, b, lora.scale, is_embedding or module in self._conv1d, lora.parts.get("lora_magnitude_vector"))
            shape = self.tensors[name].shape
            rows_and_columns = (shape[0], torch.Size(shape[1:]).numel())
            if change.shape != rows_and_columns:
                raise ValueError(
                    f"The adapter {str(adapter.folder)!r}: its LoRA of {module} makes {change.shape}, but the weight is "
                    f"{tuple(shape)}. Was it made for another base?"
                )
            if change.magnitude is not None and change.is_transposed:
                raise ValueError(
                    f"The adapter {str(adapter.folder)!r} has DoRA on {module}, whose weight is stored transposed; that cannot "
                    "be merged row by row. Merge it with PEFT."
                )
            if not self.tensors[name].dtype.is_floating_point:
                raise ValueError(f"{name} is {self.tensors[name].dtype}: a LoRA cannot be merged into quantised weights.")
            self.changes[name] = (*self.changes.get(name, ()), change)


def _is_same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same values."""
    if first is second or (isinstance(first, StoredTensor) and first == second):
        return True
    if tuple(first.shape) != tuple(second.shape) or first.dtype != second.dtype:
        return False
    return torch.equal(*(tensor.map() if isinstance(tensor, StoredTensor) else tensor for tensor in (first, second)))
