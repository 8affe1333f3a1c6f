"""Toy families, one for each way in which pictures reach a language model. All of them see mean colours of parts of a picture."""

from contextlib import contextmanager

import torch
from PIL import Image
from transformers import LlamaForCausalLM

from pipelines.base import ImageFeatures, VisionPipeline

CELL_PX = 10


def colours(image: Image.Image, grid: tuple[int, int]) -> torch.Tensor:
    """(rows x columns, 3) mean colours, 0..1, row by row."""
    columns, rows = grid
    small = image.convert("RGB").resize(grid, Image.Resampling.BOX)
    return torch.tensor([small.getpixel((x, y)) for y in range(rows) for x in range(columns)]).float() / 255


class Toy(VisionPipeline):
    image_mark = "<img><img_token></img>\n"

    def __init__(self, tokenizer, width: int):
        self.placeholder_token_id = tokenizer.convert_tokens_to_ids("<img_token>")
        self.projector = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
        self.batches: list[int] = []

    @property
    def name(self) -> str:
        return f"toy-{type(self).__name__.lower()}"

    @property
    def fingerprint(self) -> str:
        return f"{self.name}:{self.projector._version}"

    def image_ids(self, sizes, tokenizer):
        return [[self.placeholder_token_id] for _ in sizes]


class Tiles(Toy):
    """Embeddings: a placeholder per cell and a line break after each row of cells; half as many rows when there are several."""

    image_start, image_end = "<img>", "</img>\n"

    def __init__(self, tokenizer, width):
        super().__init__(tokenizer, width)
        self.embedding_width = width

    def _grid(self, size, num_images):
        rows = max(1, size[1] // CELL_PX // (2 if num_images > 1 else 1))
        return max(1, size[0] // CELL_PX), rows

    def image_ids(self, sizes, tokenizer):
        line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
        grids = [self._grid(size, len(sizes)) for size in sizes]
        return [([self.placeholder_token_id] * columns + line_break) * rows for columns, rows in grids]

    def encode_images(self, images, lengths=None):
        self.batches.append(len(images))
        found = []
        for image, length in zip(images, lengths, strict=True):
            columns = max(1, image.width // CELL_PX)
            whole, half = (self._grid(image.size, count) for count in (1, 2))
            line_break = (length - whole[0] * whole[1]) / whole[1]
            grid = whole if line_break >= 1 and line_break == int(line_break) else half
            found.append(ImageFeatures(embeds=colours(image, (columns, grid[1])) @ self.projector))
        return found


class Cross(Toy):
    """Cross-attention: what a hook on a layer adds is the mean of the states in force."""

    def encode_images(self, images, lengths=None):
        self.batches.append(len(images))
        return [ImageFeatures(states=colours(image, (2, 2)) @ self.projector) for image in images]

    @contextmanager
    def attach(self, language_model):
        def add(module, arguments, output):
            states = language_model.toy_states
            return output if states is None else output + 3 * states.to(output)

        language_model.toy_states = None
        handle = language_model.get_decoder().layers[0].register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
            del language_model.toy_states

    def model_inputs(self, language_model, input_ids, attention_mask, spans, features, cached=0):
        given = [torch.stack([each.states.mean(0) for each in row]).mean(0) if row else None for row in features]
        blank = torch.zeros_like(self.projector[0])
        rows = [blank if row is None else row for row in given]
        language_model.toy_states = torch.stack(rows)[:, None] if any(row is not None for row in given) else None
        return {}


class Native(Toy):
    """Native inputs: the language model takes `pixel_values` itself."""

    keeps_prefix = True

    def encode_images(self, images, lengths=None):
        self.batches.append(len(images))
        return [ImageFeatures(inputs={"pixel_values": colours(image, (1, 1))}) for image in images]

    def model_inputs(self, language_model, input_ids, attention_mask, spans, features, cached=0):
        pixels = [
            each.inputs["pixel_values"]
            for places, row in zip(spans, features, strict=True)
            for span, each in zip(places, row, strict=True)
            if span.start >= cached
        ]
        return {"pixel_values": torch.cat(pixels)} if pixels else {}


class NativeModel(LlamaForCausalLM):
    """A whole model: (N, 3) `pixel_values` become the embeddings of the N placeholders, as in transformers' models.

    Its `forward` does not name `attention_mask`: `generate` makes none by itself then.
    """

    placeholder_token_id: int

    def forward(self, input_ids=None, pixel_values=None, inputs_embeds=None, **kwargs):
        if pixel_values is not None and inputs_embeds is None:
            mask = input_ids == self.placeholder_token_id
            if mask.any():  # afterwards they are in the cache
                if int(mask.sum()) != len(pixel_values):
                    raise ValueError(f"{int(mask.sum())} placeholders but {len(pixel_values)} pictures.")
                inputs_embeds = self.get_input_embeddings()(input_ids).clone()
                width = inputs_embeds.shape[-1]
                inputs_embeds[mask] = pixel_values.repeat(1, width // 3 + 1)[:, :width].to(inputs_embeds)
                input_ids = None
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)
