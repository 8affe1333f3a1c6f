"""Checkpoints as they lie on disk: stored tensors, layouts, foreign formats. Nothing here runs code of a checkpoint."""
