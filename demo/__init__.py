"""The embedded default: a tiny synthetic world, and a tiny model that was really trained on it."""
