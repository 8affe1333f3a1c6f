"""`python -m training train --config FILE`: one stage of training, from a model folder to a model folder."""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback

from pipelines import visualcla
from pipelines.visualcla.saving import replace_folder, save_model_folder

from ..data import open_source
from ..data.collator import ConversationCollator, TooManyBadRows
from .adapter import add_lora, merge_lora, save_adapter
from .config import Arguments, Recipe, parse, resolved
from .optimizer import MuonWithAdamW
from .trainer import PartsTrainer
from .vision import AttributeClassifier, AttributeCollator


def main(argv: list[str]) -> int:
    recipe, arguments = parse(argv)
    try:
        run = Run(recipe, arguments)
    except (OSError, ValueError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    for line in getattr(run.rows, "report", ()):
        print(line)
    try:
        print(run.train())
    except TooManyBadRows as error:
        print(f"training: {str(error).splitlines()[-1]}", file=sys.stderr)
        return 2
    return 0


class Run:
    """A training run: opened and checked on creation, then trained and saved by `train`.

    Raises:
        FileNotFoundError, ValueError: the model or the data cannot be opened, or do not fit the recipe.
    """

    def __init__(self, recipe: Recipe, arguments: Arguments):
        self.recipe, self.arguments = recipe, arguments
        self.folder = Path(arguments.output_dir)
        self.result = self.folder / recipe.result
        if self.result.exists() and not recipe.overwrite:
            raise ValueError(f"{str(self.result)!r} exists. Give another --output_dir, or --overwrite true.")
        self.rows = open_source(recipe.source, arguments.seed, arguments.train_batch_size, recipe.sort_window)
        if not hasattr(self.rows, "__len__") and arguments.max_steps < 1:
            raise ValueError(f"The source {recipe.source!r} may be endless: say when to stop with --max_steps.")
        self.held_out = getattr(self.rows, "held_out", None)
        if arguments.eval_strategy != "no" and self.held_out is None:
            raise ValueError(
                "eval_strategy is set, but there are no held-out rows to judge by. Give a mixture with held_out as source, or leave "
                "eval_strategy out."
            )
        torch.manual_seed(arguments.seed)
        self.model = visualcla.load_pretrained(recipe.model, dtype=torch.float32)
        if recipe.attn_implementation:
            for part in (self.model.vision_model, self.model.text_model):
                part.set_attn_implementation(recipe.attn_implementation)
        self.processor = self.model.processor
        self.lora = add_lora(self.model, recipe)
        choose_parameters(self.model, recipe.train_parts)
        if recipe.compile_layers:
            for layer in self.model.text_model.get_decoder().layers:
                layer.compile(dynamic=True)
        self.learner, self.collator = self._objective()

    def train(self) -> Path:
        """Train, save, and return the folder of the result."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(resolved(self.recipe, self.arguments), encoding="utf-8")
        trainer = PartsTrainer(
            model=self.learner,
            args=self.arguments,
            train_dataset=self.rows,
            eval_dataset=self.held_out if self.arguments.eval_strategy != "no" else None,
            data_collator=self.collator,
            callbacks=[LossCurve(self.folder)],
            optimizers=(self._optimizer(), None),
        )
        trainer.train(resume_from_checkpoint=self.arguments.resume_from_checkpoint)
        if not trainer.is_world_process_zero():
            return self.result
        self.model.eval()
        dtype = getattr(torch, self.recipe.result_dtype)
        if self.recipe.result == "adapter":
            partial = self.result.with_name(".adapter.partial")
            shutil.rmtree(partial, ignore_errors=True)
            save_adapter(self.model, self.processor, self.recipe, partial, dtype)
            replace_folder(partial, self.result)
        else:
            merge_lora(self.lora)
            save_model_folder(self.model.to(dtype), self.processor, self.result)
        return self.result

    def _optimizer(self) -> torch.optim.Optimizer | None:
        """None: what the arguments say."""
        if self.recipe.muon_learning_rate is None:
            return None
        learning = [(name, parameter) for name, parameter in self.learner.named_parameters() if parameter.requires_grad]
        arguments = self.arguments
        return MuonWithAdamW(
            learning,
            self.recipe.muon_learning_rate,
            arguments.learning_rate,
            (arguments.adam_beta1, arguments.adam_beta2),
            arguments.weight_decay,
        )

    def _objective(self) -> tuple[nn.Module, object]:
        if self.recipe.objective == "conversation":
            return self.model, ConversationCollator(self.processor)
        targets = next(iter(self.rows))["targets"]
        use_resampler = "visual_resampler" in self.recipe.train_parts
        sizes = (len(targets), len(targets[0]), self.recipe.num_attribute_values)
        classifier = AttributeClassifier(self.model, *sizes, use_resampler)
        return classifier, AttributeCollator(self.processor)


def choose_parameters(model: visualcla.VisualCLAForConditionalGeneration, train_parts: list[str]) -> None:
    """LoRA layers and the given parts learn, nothing else.

    Raises:
        ValueError: nothing would learn.
    """
    for name, parameter in model.named_parameters():
        is_base_of_lora = ".base_layer." in name
        in_full = model.stored_name(name).split(".")[0] in train_parts and not is_base_of_lora and ".pooler." not in name
        parameter.requires_grad_(".lora_" in name or in_full)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("Nothing would learn: give train_parts or lora_target_modules.")


class LossCurve(TrainerCallback):
    """Writes every logged loss to log.jsonl, and at the end the curve to loss.png."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.points: list[dict] = []

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if not state.is_world_process_zero or not logs:
            return
        point = {"step": state.global_step, **logs}
        self.points.append(point)
        with (self.folder / "log.jsonl").open("a" if len(self.points) > 1 else "w", encoding="utf-8") as file:
            file.write(json.dumps(point) + os.linesep)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        points = [(point["step"], point["loss"]) for point in self.points if "loss" in point]
        if points:
            draw_curve(points, self.folder / "loss.png")


def draw_curve(points: list[tuple[int, float]], path: Path) -> None:
    """Loss over steps as a picture, the loss on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.subplots()
    axes.plot(*zip(*points, strict=True))
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
