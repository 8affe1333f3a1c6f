"""The same models on a serving engine: a plugin for vLLM, and prompt embeddings for engines without one. See docs/serving.md."""
