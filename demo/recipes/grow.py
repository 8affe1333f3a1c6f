"""What a wide stage starts from: a demo model with finer eyes, and with the words of the wide world.

    python -m demo.recipes.grow outputs/demo/2_over_turns/model outputs/demo/grown --side_px 96

It answers as before: each patch has more pixels of a picture that is as much larger, and words that are new begin as the mean of the
pieces that they were read in.
"""

import argparse
from pathlib import Path

from pipelines.own_python import hand_over

if __name__ == "__main__":
    hand_over("demo.recipes.grow")

import torch
from torch.nn.functional import interpolate
from transformers import PreTrainedTokenizerBase

from demo import chat_modes
from demo.grammar import LANGUAGES
from demo.recipes.foundation import PATCHES_PER_SIDE, make_config, make_model, make_processor
from demo.wordings import spoken
from pipelines.registry import load_model
from pipelines.visualcla.saving import save_model_folder


def grown_patches(weight: torch.Tensor, side_px: int) -> torch.Tensor:
    """A patch embedding of shape (width, 3, side, side) for patches of `side_px`: the same answer to the same picture, enlarged."""
    return interpolate(weight.float(), (side_px, side_px), mode="bilinear") * (weight.shape[-1] / side_px) ** 2


def grown_words(weight: torch.Tensor, old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> torch.Tensor:
    """Rows of shape (new vocabulary, width): those that the old vocabulary has, and means of its pieces for the others."""
    vocabulary, rows = old.get_vocab(), torch.zeros(len(new), weight.shape[1])
    for token, index in new.get_vocab().items():
        pieces = [vocabulary[token]] if token in vocabulary else old(token, add_special_tokens=False)["input_ids"]
        rows[index] = weight[pieces].float().mean(0)
    return rows


@torch.no_grad()
def grow(folder: Path, output_dir: Path, side_px: int) -> None:
    """Write the grown model of a demo model's folder, whose pictures have `side_px` pixels a side."""
    known, known_processor = load_model(folder, dtype="float32")
    further = [*chat_modes.all_texts(), *(text for language in LANGUAGES for text in spoken(language))]
    processor = make_processor(side_px, further)
    model = make_model(make_config(processor.tokenizer, processor.num_image_embeds, side_px))
    weights = known.state_dict()
    for name, wanted in model.state_dict().items():
        if name.endswith("patch_embedding.weight"):
            weights[name] = grown_patches(weights[name], wanted.shape[-1])
        elif wanted.shape != weights[name].shape:
            weights[name] = grown_words(weights[name], known_processor.tokenizer, processor.tokenizer)
    model.load_state_dict(weights)
    model.text_model.generation_config = known.text_model.generation_config
    save_model_folder(model, processor, output_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description="Give a demo model finer eyes and the words of the wide world.")
    parser.add_argument("model", type=Path, help="folder of that model")
    parser.add_argument("output_dir", type=Path, help="where the grown one goes")
    parser.add_argument("--side_px", type=int, required=True, help="side of the square that it sees, in pixels")
    arguments = parser.parse_args()
    if arguments.side_px % PATCHES_PER_SIDE:
        parser.error(f"--side_px is {arguments.side_px}, but must be a multiple of {PATCHES_PER_SIDE}")
    grow(arguments.model, arguments.output_dir, arguments.side_px)


if __name__ == "__main__":
    main()
