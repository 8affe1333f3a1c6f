"""An adapter of a whole model into the forms that other code opens; the family knows them."""

from pathlib import Path

import torch

from pipelines.registry import merging

from .input_hashes import InputHashes
from .output_folder import OutputFolder
from .products import Product
from .shards import Shard
from .write import recipe_hash, write_weights

FORMS = ("release", "split")


def convert_adapter(source: Path, target: Path, form: str, dtype: torch.dtype | None, force: bool) -> None:
    """Write an adapter in another form.

    Args:
        source: the adapter, of a whole model.
        target: the folder to make.
        form: one of `FORMS`; what they are is said in the family's `adapter_forms.py`.
        dtype: of the tensors; None keeps theirs.
        force: replace what is there.

    Raises:
        FileNotFoundError, ValueError, OSError: `source` is no such adapter, or cannot have this form; see `OutputFolder`.
    """
    family = merging(source)
    made = family.adapter_forms[form](family.read_adapter(source))
    shards = [
        Shard(path, {name: Product(tensor, dtype or tensor.dtype) for name, tensor in tensors.items()})
        for path, tensors in made.weights.items()
    ]
    with OutputFolder(target, recipe_hash(shards), [source], force) as output:
        write_weights(shards, output, InputHashes())
        for path, content in made.files.items():
            output.write(path, content)
        output.publish()
