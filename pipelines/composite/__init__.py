"""What families share whose pictures are a fixed number of embeddings in a causal language model's prompt.

A model of this kind is a vision model (encoder and connector, a class of the family's own) and a language model of transformers,
nothing else. Here are the whole model, its processor, its `VisionPipeline` and its files; a family adds a configuration, a vision
model, a chat template and the names of its published tensors.
"""
