"""The eyes: one folder per model family, and what all families share."""
