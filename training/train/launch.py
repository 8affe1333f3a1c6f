"""What a launcher brings along beside the recipe, and what of it a run can do: accelerate's FSDP, DeepSpeed's file."""

import os

from transformers import TrainingArguments

SHARD = "give --shard true, which divides the layers, their gradients and optimizer states by fully_shard"


def contradiction(arguments: TrainingArguments) -> str | None:
    """What is not allowed, in a sentence."""
    if arguments.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return f"accelerate's fsdp is not supported, it is ignored on CPUs: {SHARD}."
    if arguments.deepspeed_plugin is None:
        return None
    file = arguments.deepspeed_plugin.deepspeed_config
    zero = file.get("zero_optimization", {})
    if zero.get("stage", 0) > 1 or zero.get("overlap_comm"):
        # Buckets are then filled in the order of backward, which is another one where a batch holds no picture: seen, with two
        # processes, as gradients of different parameters added up without a word.
        return (
            f"deepspeed has zero_optimization {zero!r}: from stage 2 on, and with overlap_comm, it adds up gradients in the order of "
            f"backward, which differs between batches with and without pictures. Take training/launch/zero1.json, or {SHARD}."
        )
    if own := [name for name in ("optimizer", "scheduler") if name in file]:
        return (
            f"The deepspeed file has {' and '.join(own)}, but parts learn at the recipe's own rates: leave it out of the file."
        )
    return None
