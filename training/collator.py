"""The collator, under the name it had before `training.data` was a package."""

from .data.collator import IGNORED, ConversationCollator, preview

__all__ = ["IGNORED", "ConversationCollator", "preview"]
