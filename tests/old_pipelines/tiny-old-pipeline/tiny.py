"""A pipeline as they were written for the old extension: what it imports is the old web UI's, and nothing here was adapted.

It sees: each of its three embeddings is a projection of the mean colour of a third of the picture.
"""

import torch
from extensions.multimodal.abstract_pipeline import AbstractMultimodalPipeline
from modules import shared
from modules.logging_colors import logger
from modules.text_generation import encode
from PIL import Image


class Tiny64(AbstractMultimodalPipeline):
    width = 64

    def __init__(self, params: dict) -> None:
        super().__init__()
        self.params = params
        self.vision_device = self._get_device("vision_device", params)
        self.projector_dtype = self._get_dtype("projector_bits", params)
        generator = torch.Generator().manual_seed(0)
        self.projector = torch.randn(3, self.width, generator=generator).to(self.vision_device, self.projector_dtype)
        self.calls = []
        logger.info(f"Tiny - loaded on {self.vision_device} as {self.projector_dtype}")

    @staticmethod
    def name() -> str:
        return "tiny-as-it-calls-itself"

    @staticmethod
    def image_start() -> str:
        return "<Img>"

    @staticmethod
    def image_end() -> str:
        return "</Img>"

    @staticmethod
    def placeholder_token_id() -> int:
        return 0

    @staticmethod
    def num_image_embeds() -> int:
        return 3

    @staticmethod
    def embed_tokens(input_ids: torch.Tensor) -> torch.Tensor:
        return shared.model.model.embed_tokens(input_ids).to(shared.model.device, dtype=shared.model.dtype)

    @staticmethod
    def placeholder_embeddings() -> torch.Tensor:
        # As in pipelines that were published: the length depends on the tokenizer and is hardly ever num_image_embeds().
        return Tiny64.embed_tokens(encode("<ImgContent>", add_bos_token=False)[0])

    def embed_images(self, images: list[Image.Image]) -> torch.Tensor:
        self.calls.append([image.mode for image in images])
        thirds = [torch.tensor([list(image.resize((1, 3)).getpixel((0, y))) for y in range(3)]) for image in images]
        pixels = torch.stack(thirds).to(self.vision_device, self.projector_dtype) / 255
        return (pixels @ self.projector).to(shared.model.device, dtype=shared.model.dtype)


class Tiny48(Tiny64):
    width = 48

    @staticmethod
    def image_start():
        return None

    @staticmethod
    def placeholder_token_id() -> int:
        return 5

    def embed_images(self, images: list[Image.Image]) -> torch.Tensor:
        if any(image.size == (1, 1) for image in images):
            raise KeyError("too small")
        return super().embed_images(images)
