"""The reader of weight files, under the names it had before `pipelines.checkpoints`."""

from .checkpoints.stored_tensors import SAFETENSORS_DTYPES, load_tensors, tensor_headers
from .checkpoints.weight_files import weight_files

__all__ = ["SAFETENSORS_DTYPES", "load_tensors", "tensor_headers", "weight_files"]
