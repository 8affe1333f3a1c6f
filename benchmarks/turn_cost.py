"""What a chat turn costs with pictures in it: time to the first token, and per turn, over conversations of 1 to 20 turns.

    python benchmarks/turn_cost.py --model demo/model [--json]

Three ways are compared: text only without the plugin; ours, where a picture is encoded once in its life; and the way of the web UI's
former extension, which encoded every picture of the prompt anew on each turn. The plugin runs inside the stand-in of the web UI that
the tests use (`tests/webui_stub`), the model through `generate` as the web UI calls it.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "webui_stub")]

import torch  # noqa: E402
from PIL import Image  # noqa: E402

TURNS, PICTURES = (1, 5, 10, 20), (0, 1, 5, 10)
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{{ 'assistant:' }}"
HOOKS = ("state_modifier", "input_modifier", "custom_generate_chat_prompt", "custom_tokenized_length", "tokenizer_modifier")


class Stage:
    """The stand-in with a model in it, and the plugin switched on or off."""

    def __init__(self, folder: Path):
        import modules.chat
        import modules.extensions
        import modules.shared
        from transformers import AutoModelForCausalLM

        from pipelines.visualcla import load_tokenizer

        self.chat, self.extensions, self.shared = modules.chat, modules.extensions, modules.shared
        self.shared.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.shared.tokenizer = load_tokenizer(folder)
        self.shared.model_name, self.shared.args.model_dir = folder.name, str(folder.parent)
        spec = importlib.util.spec_from_file_location("plugin", ROOT / "extensions" / "multimodal_vcla" / "script.py")
        self.script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.script)
        self.script.params["max_images"] = 1000
        self.script.setup()
        self.hook_s = 0.0
        for name in HOOKS:
            setattr(self.script, name, self._timed(getattr(self.script, name)))

    def _timed(self, hook):
        def timed(*args, **kwargs):
            start = time.perf_counter()
            self._depth = getattr(self, "_depth", 0) + 1
            try:
                return hook(*args, **kwargs)
            finally:
                self._depth -= 1
                self.hook_s += time.perf_counter() - start if self._depth == 0 else 0

        return timed

    def turn(self, text: str, state: dict, files: list[Path]) -> float:
        """One turn up to its first token; seconds."""
        start = time.perf_counter()
        last = self.chat.one_turn(text, state, files)
        embeds = {} if last.embeds is None else {"inputs_embeds": last.embeds}
        with torch.no_grad():
            self.shared.model.generate(inputs=last.ids, **embeds, max_new_tokens=1, do_sample=False, pad_token_id=2)
        seconds = time.perf_counter() - start
        last.history["internal"][-1][1] = last.history["visible"][-1][1] = "I see it."
        state["history"] = last.history
        return seconds

    def conversation(self, num_turns: int, files: list[Path], way: str) -> list[float]:
        """Seconds to the first token of each turn; the pictures come one per turn, what is left over with the last."""
        from multimodal_vcla import vision

        self.extensions.loaded[:] = [] if way == "text" else [(self.script, "multimodal_vcla")]
        if way != "text" and files:
            vision.current().cache.clear()
        state = self.chat.new_state(instruction_template_str=TEMPLATE, truncation_length=100_000)
        seconds, rest = [], [] if way == "text" else list(files)
        for turn in range(num_turns):
            if way == "anew" and files:
                vision.current().cache.clear()
            count = len(rest) if turn == num_turns - 1 else min(1, len(rest))
            seconds.append(self.turn("What is in it?", state, rest[:count]))
            rest = rest[count:]
        return seconds


def sights(stage: Stage, file: Path) -> dict:
    """Everything the plugin does for one picture, from what was sent to its embeddings: the first time and again."""
    from multimodal_vcla import vision
    from multimodal_vcla.pictures import Picture

    data = file.read_bytes()
    current = vision.current()

    def see() -> float:
        start = time.perf_counter()
        current.see([Picture(data, "picture")])
        return time.perf_counter() - start

    see()
    first = []
    for _ in range(5):
        current.cache.clear()
        first.append(see())
    again = [see() for _ in range(50)]
    return {"first_s": statistics.median(first), "again_s": statistics.median(again)}


def text_share(stage: Stage) -> float:
    """The plugin's share of a text-only turn up to its first token, in percent."""
    stage.extensions.loaded[:] = [(stage.script, "multimodal_vcla")]
    state = stage.chat.new_state(instruction_template_str=TEMPLATE, truncation_length=100_000)
    shares = []
    for _ in range(12):
        stage.hook_s, before = 0.0, time.perf_counter()
        stage.turn("How are you?", state, [])
        shares.append(100 * stage.hook_s / (time.perf_counter() - before))
    return statistics.median(shares)


def measure(folder: Path, side_px: int) -> dict:
    stage = Stage(folder)
    with tempfile.TemporaryDirectory() as name:
        files = []
        for number in range(max(PICTURES)):
            files.append(Path(name) / f"{number}.jpg")
            Image.effect_noise((side_px, side_px), 20 + 8 * number).convert("RGB").save(files[-1])
        stage.conversation(1, files[:1], "ours")  # loads the eyes
        rows = []
        for num_turns in TURNS:
            for num_pictures in PICTURES:
                for way in ("text", "ours", "anew"):
                    if way != "text" or num_pictures == 0:
                        seconds = stage.conversation(num_turns, files[:num_pictures], way)
                        row = {"turns": num_turns, "pictures": num_pictures, "way": way, "last_turn_s": seconds[-1]}
                        rows.append({**row, "per_turn_s": statistics.mean(seconds)})
        result = {"model": folder.name, "picture_px": side_px, "threads": torch.get_num_threads(), "conversations": rows}
        return {**result, "sight": sights(stage, files[0]), "text_share_percent": text_share(stage)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "model", help="model folder with eyes")
    parser.add_argument("--side", type=int, default=768, metavar="PX", help="side of the pictures")
    parser.add_argument("--json", action="store_true", help="print everything that was measured as JSON")
    options = parser.parse_args()
    if not (options.model / "vision" / "config.json").is_file():
        parser.error(f"{str(options.model)!r} is no model folder with eyes: 'vision/config.json' is missing.")
    result = measure(options.model.resolve(), options.side)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"{result['model']}, JPEGs of {options.side} x {options.side}, {result['threads']} threads; seconds to the first token"
    )
    print(f"{'turns':>6}{'pictures':>10}{'way':>8}{'last turn':>12}{'per turn':>12}")
    for row in result["conversations"]:
        print(f"{row['turns']:>6}{row['pictures']:>10}{row['way']:>8}{row['last_turn_s']:>12.4f}{row['per_turn_s']:>12.4f}")
    first, again = result["sight"]["first_s"], result["sight"]["again_s"]
    print(f"A picture: first sight {1e3 * first:.2f} ms, again {1e3 * again:.4f} ms, {first / again:.0f} times less.")
    print(f"The plugin's share of a text-only turn: {result['text_share_percent']:.2f} %")


if __name__ == "__main__":
    main()
