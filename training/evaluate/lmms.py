"""Our models in lmms-eval (0.7), which has the public benchmarks: `lmms_eval --model multimodal_vcla --model_args model=FOLDER`.

lmms-eval finds it by the entry point group `lmms_eval.models`, so that the package has to be installed in its environment. Pictures
stand before the question, as in lmms-eval's simple models. Greedy unless a task samples; answers of a batch are generated together.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from pipelines.base import ImagePart
from pipelines.command_line import Parser, add_model_flags, load_chat
from pipelines.generation import message
from pipelines.images import load_image

try:
    from lmms_eval.api.model import lmms
    from lmms_eval.models.registry_v2 import ModelManifest
except ImportError as error:
    raise ImportError("lmms-eval is not installed here: pip install lmms-eval") from error

MODEL_ID = "multimodal_vcla"


def manifest() -> ModelManifest:
    """What the entry point gives."""
    return ModelManifest(MODEL_ID, simple_class_path=f"{__name__}.LmmsModel")


class LmmsModel(lmms):
    """Args:
    model: a model folder or hub name of any family, or the file that it was published as.
    batch_size: questions answered at once.
    kwargs: the other flags of a model, as `python -m training evaluate --help` has them: `text_model`, `vision_model`,
        `lora_model`, `dtype`, `prompt_style`, `load_in_8bit`, `load_in_4bit`, `gpus`, `only_cpu`.

    Raises:
        ValueError: a keyword is no such flag.
    """

    is_simple = True

    def __init__(self, model: str, batch_size: int | str = 1, **kwargs: Any):
        super().__init__()
        parser = Parser(MODEL_ID)
        add_model_flags(parser)
        args: argparse.Namespace = parser.parse_args([])
        for name in ("device", "max_batch_size", "pretrained"):  # lmms-eval's own
            kwargs.pop(name, None)
        if unknown := sorted(set(kwargs) - set(vars(args))):
            raise ValueError(f"Unknown model_args {unknown}. Allowed: {', '.join(sorted(vars(args)))}, batch_size.")
        vars(args).update(kwargs, model=model)
        self.batch_size = int(batch_size)
        self.chat = load_chat(args)

    def generate_until(self, requests: Sequence) -> list[str]:
        """The answers, in the order of the requests.

        Raises:
            ValueError, OSError: a question cannot be answered; a benchmark with holes would be wrong in silence.
        """
        from tqdm import tqdm

        answers: list[str] = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(str(sorted(request.args[1].items())), []).append(number)
        with tqdm(total=len(requests), unit="question", disable=self.rank != 0) as bar:
            for numbers in groups.values():
                settings = dict(requests[numbers[0]].args[1])
                for start in range(0, len(numbers), self.batch_size):
                    batch = numbers[start : start + self.batch_size]
                    conversations = [self._conversation(requests[number]) for number in batch]
                    for number, answer in zip(batch, self.chat.answer_each(conversations, _config(settings)), strict=True):
                        if isinstance(answer, Exception):
                            raise answer
                        answers[number] = _until(answer, settings.get("until"))
                        self.cache_hook.add_partial("generate_until", (requests[number].args[0], settings), answers[number])
                    bar.update(len(batch))
        return answers

    def loglikelihood(self, requests: Sequence) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether the model would say it greedily) of each continuation."""
        found = []
        for request in requests:
            target = request.args[1]
            document = self.task_dict[request.args[4]][request.args[5]][request.args[3]]
            continuation = target if isinstance(target, str) else target(document)
            messages, images = self._conversation(request)
            likelihood = self.chat.log_likelihoods(messages, images, [continuation])[0]
            config = _config({"max_new_tokens": len(self.chat.tokenizer(continuation)["input_ids"])})
            greedy = self.chat.answer(messages, images, config).strip()
            found.append((likelihood, greedy.startswith(continuation.strip())))
        return found

    def generate_until_multi_round(self, requests: Sequence) -> list[str]:
        raise ValueError("Tasks of several rounds are not served by this model; run a task of one round.")

    def _conversation(self, request) -> tuple[list, list[ImagePart]]:
        context, _, doc_to_visual, document, task, split = request.args
        visuals = doc_to_visual(self.task_dict[task][split][document]) or []
        images = [ImagePart.of(load_image(each, background="white")) for each in _pictures(visuals)]
        return [message("user", context, len(images))], images


def _pictures(visuals: Iterable) -> Iterable[Image.Image]:
    for visual in visuals:
        if not isinstance(visual, Image.Image):
            raise ValueError(f"A question shows {type(visual).__name__}; only pictures are seen, no video and no sound.")
        yield visual


def _config(settings: dict[str, Any]):
    """lmms-eval's keywords of generation as ours."""
    from transformers import GenerationConfig

    temperature = settings.get("temperature") or 0
    does_sample = bool(settings.get("do_sample", temperature > 0)) and temperature > 0
    sampling = {"temperature": temperature, "top_p": settings.get("top_p") or 1.0} if does_sample else {}
    beams = {"num_beams": settings["num_beams"]} if settings.get("num_beams", 1) not in (None, 1) else {}
    return GenerationConfig(do_sample=does_sample, max_new_tokens=settings.get("max_new_tokens", 1024), **sampling, **beams)


def _until(answer: str, stops: str | Sequence[str] | None) -> str:
    for stop in [stops] if isinstance(stops, str) else stops or ():
        if stop:
            answer = answer.partition(stop)[0]
    return answer
