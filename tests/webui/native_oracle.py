"""What a model of transformers says when its own processor and `generate` are asked, without the web UI."""

import contextlib
import re
import string
from pathlib import Path

import native_models
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from pipelines.native import load_processor

NUM_NEW = 16
SEEDS = {"qwen2_5_vl": 3, "gemma3": 1, "mllama": 8}
"""The first that does, as far as known."""
LETTERS = [*string.ascii_lowercase]


class NativeOracle:
    """Asked with turns: `(text, pictures)` for a question, `text` for an answer.

    Args:
        folder: of the model.
    """

    def __init__(self, folder: Path):
        self.folder, self.mark = folder, native_models.FAMILIES[folder.name]["mark"]
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        self.processor = load_processor(folder)
        allowed = set(self.processor.tokenizer.convert_tokens_to_ids(LETTERS))
        self.banned = [token for token in range(native_models.TEXT["vocab_size"]) if token not in allowed]
        self.bans = ",".join(map(str, self.banned))
        self.shown: dict[str, bool] = {}
        """What the processor is told about the pictures."""

    def __call__(self, *turns: tuple | str, begun: str = "") -> str:
        """The next answer, or how one that is begun goes on."""
        return self._generate(self._inputs(turns, begun))

    def length(self, *turns: tuple | str) -> int:
        return self._inputs(turns)["input_ids"].shape[1]

    def costs(self, pictures: list[Path]) -> list[int]:
        """How many ids stand for each picture, plain text around them aside."""
        costs = []
        for picture in pictures:
            alone = self.processor(
                images=[[Image.open(picture).convert("RGB")]], text=[self.mark], add_special_tokens=False, **self.shown
            )
            bos = self.processor.tokenizer.bos_token_id
            is_text = [token < 256 or token == bos for token in alone["input_ids"][0]]  # the tokens of bytes
            costs.append(len(is_text) - is_text.index(False) - is_text[::-1].index(False))
        return costs

    def _inputs(self, turns, begun: str = "") -> dict:
        messages, images = [], []
        for turn in turns:
            text, pictures = turn if isinstance(turn, tuple) else (turn, [])
            items = [{"type": "image"}] * len(pictures) + ([{"type": "text", "text": text}] if text else [])
            messages.append({"role": "user" if isinstance(turn, tuple) else "assistant", "content": items})
            images += [Image.open(picture).convert("RGB") for picture in pictures]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True) + begun
        take = self.processor if images else self.processor.tokenizer
        given = {"images": [images], **self.shown} if images else {}
        return take(**given, text=[text], return_tensors="pt", add_special_tokens=False)

    def of_prompt(self, seen: dict, pictures: list[Path]) -> str:
        """The answer to a prompt that reached the model, were its pictures these.

        Args:
            seen: one of `driver.Server.prompts`.
        """
        text = re.sub("<__vcla:[^>]*>", self.mark, seen["prompt"])
        tokenizer = self.processor.tokenizer
        if seen["ids"][0] == tokenizer.bos_token_id and not text.startswith(tokenizer.bos_token):
            text = tokenizer.bos_token + text  # the web UI's, in modes without a template
        images = [Image.open(picture).convert("RGB") for picture in pictures]
        return self._generate(self.processor(images=[images], text=[text], return_tensors="pt", add_special_tokens=False))

    @torch.no_grad()
    def _generate(self, given: dict) -> str:
        length = given["input_ids"].shape[1]
        tokens = self.model.generate(
            **given, do_sample=False, max_new_tokens=NUM_NEW, suppress_tokens=self.banned, pad_token_id=0, eos_token_id=None
        )
        return self.processor.tokenizer.decode(tokens[0, length:])

    def make_lora(self, folder: Path) -> Path:
        """An adapter that changes what the model says."""
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        config = LoraConfig(r=4, lora_alpha=64, target_modules=r".*(language|text)_model.*\.q_proj", init_lora_weights=False)
        adapted = get_peft_model(self.model, config)
        adapted.save_pretrained(folder)
        self.model = adapted.unload()
        return folder

    @contextlib.contextmanager
    def adapted(self, lora: Path):
        from peft import PeftModel

        own, self.model = self.model, PeftModel.from_pretrained(self.model, lora)
        try:
            yield
        finally:
            self.model = self.model.unload()
            assert self.model is own


def written(family: str, folder: Path, pictures: list[Path]) -> NativeOracle:
    """A tiny model of a family that answers each picture differently, alone and as the second of two."""
    for seed in (SEEDS.get(family, 0), *range(20)):
        native_models.write(family, folder, seed)
        oracle = NativeOracle(folder)
        answers = [oracle(("What is this?", [picture])) for picture in pictures]
        answers += [oracle(("What is this?", pictures[:1]), "a", ("And these?", [picture])) for picture in pictures[1:]]
        if len(set(answers)) == len(answers):
            return oracle
    raise AssertionError(f"No seed makes a {family} that tells pictures apart.")
