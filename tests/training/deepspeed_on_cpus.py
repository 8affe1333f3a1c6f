"""`python -m training train ...` under DeepSpeed on CPUs: accelerate takes DeepSpeed to GPUs only, so its choice is made here."""

import os
import sys

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from training.__main__ import main

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
sys.exit(main(sys.argv[1:]))
