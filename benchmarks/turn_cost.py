"""What a chat turn costs with pictures in it: time to the first token, and per turn, over conversations of 1 to 20 turns.

    python benchmarks/turn_cost.py --model demo/model [--json]
    python benchmarks/turn_cost.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf [--llama_server llama-server] [--plot FILE] [--json]

Three ways are compared: text only without the plugin; ours, where a picture is encoded once in its life and a turn computes what is
new in it; and anew, where every picture of the prompt is encoded and every token computed on each turn. The last turn of a
conversation brings no picture; one that does follows it and is told beside it. The plugin runs inside the stand-in of the web UI
that the tests use (`tests/webui_stub`), the model through `generate` as the web UI calls it.

With `--gguf` the language model is a LLaMA of that file, and a vision model of random weights is made for it: CLIP of the size of
ViT-B/16 and a resampler to 64 embeddings. What it answers means nothing; what it costs does. `--llama_server` names llama.cpp's server,
which is then given the ids of the same conversation of text, turn by turn, on the same number of threads. `--plot` draws the seconds of each
turn of the longest conversation, ours and anew.
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

from pipelines.own_python import hand_over  # noqa: E402

if __name__ == "__main__":
    hand_over(__file__)

import torch  # noqa: E402
from PIL import Image  # noqa: E402

TURNS, PICTURES = (1, 5, 10, 20), (0, 1, 5, 10)
BARS = [(10, 5), (20, 10)]
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
        self.ids = last.ids[0].tolist()
        embeds = {} if last.embeds is None else {"inputs_embeds": last.embeds}
        with torch.no_grad():
            self.shared.model.generate(inputs=last.ids, **embeds, max_new_tokens=1, do_sample=False, pad_token_id=2)
        seconds = time.perf_counter() - start
        last.history["internal"][-1][1] = last.history["visible"][-1][1] = "I see it."
        state["history"] = last.history
        return seconds

    def conversation(self, num_turns: int, files: list[Path], way: str) -> tuple[list[float], float | None]:
        """Seconds to the first token of each turn, and of one more turn that brings a picture.

        The pictures come one per turn, what is left over with the last but one: the last brings none unless it is the only one.
        """
        from multimodal_vcla import vision

        self.extensions.loaded[:] = [] if way == "text" else [(self.script, "multimodal_vcla")]
        self.forget()
        self.script.params["prefix_cache"] = way == "ours"
        state = self.chat.new_state(instruction_template_str=TEMPLATE, truncation_length=100_000)
        seconds, rest = [], [] if way == "text" else list(files)
        bringing = max(1, num_turns - 1)
        for turn in range(num_turns):
            if way == "anew" and files:
                vision.current().cache.clear()
            count = len(rest) if turn == bringing - 1 else min(1, len(rest))
            seconds.append(self.turn("What is in it?", state, rest[:count]))
            rest = rest[count:]
        if way == "text" or not files:
            return seconds, None
        if way == "anew":
            vision.current().cache.clear()
        return seconds, self.turn("And in this one?", state, [self.another])

    def forget(self) -> None:
        """Nothing is kept of earlier conversations: no features, no keys and values."""
        from multimodal_vcla import generate, vision

        if generate._prefixes is not None:
            generate._prefixes.clear()
        if vision.status()[0] == "ready":
            vision.current().cache.clear()


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


def growth(stage: Stage, files: list[Path]) -> dict:
    """Seconds at the beginning and at the end of twenty turns of the same length, all pictures in the first."""
    from multimodal_vcla import generate

    stage.extensions.loaded[:] = [(stage.script, "multimodal_vcla")]
    stage.forget()
    stage.script.params["prefix_cache"] = True
    state = stage.chat.new_state(instruction_template_str=TEMPLATE, truncation_length=100_000)
    seconds = [stage.turn("What is in it?", state, files if turn == 0 else []) for turn in range(20)]
    return {
        **_early_and_late(seconds),
        "kept_bytes": generate._prefixes.num_bytes,
        "tokens": generate.last_reuse().num_prompt_tokens,
    }


def _early_and_late(seconds: list[float]) -> dict:
    early, late = statistics.median(seconds[1:4]), statistics.median(seconds[-3:])
    return {"turn_2_s": early, "turn_20_s": late, "ratio": late / early}


def beside_llama(stage: Stage, program: Path, gguf: Path) -> dict:
    """Twenty turns of text, each with its prefix kept by us (`prefix_cache_text`), and the same ids by llama.cpp's server."""
    import llama_server

    stage.extensions.loaded[:] = [(stage.script, "multimodal_vcla")]
    stage.forget()
    stage.script.params.update(prefix_cache=True, prefix_cache_text=True)
    state = stage.chat.new_state(instruction_template_str=TEMPLATE, truncation_length=100_000)
    ours, prompts = [], []
    for _ in range(20):
        ours.append(stage.turn("What is in it? Tell me more than you did before, and say why you think so.", state, []))
        prompts.append(stage.ids)
    stage.script.params["prefix_cache_text"] = False
    stage.forget()
    with llama_server.running(program, gguf, torch.get_num_threads()) as server:
        server.first_token(prompts[0][:1])  # its first one is slow
        theirs = [server.first_token(ids) for ids in prompts]
    found = {"ours": _early_and_late(ours), "llama_cpp": _early_and_late(theirs), "tokens": len(prompts[-1])}
    return {**found, "growth_ratio": found["ours"]["ratio"] / found["llama_cpp"]["ratio"]}


def plot(result: dict, file: Path) -> None:
    """The seconds of each turn of the longest conversation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    turns, pictures = BARS[-1]
    for way, label in (("anew", "everything computed anew"), ("ours", "with the plugin")):
        seconds = next(
            row["each_turn_s"]
            for row in result["conversations"]
            if (row["turns"], row["pictures"], row["way"]) == (turns, pictures, way)
        )
        axes.plot(range(1, turns + 1), seconds, marker="o", markersize=3, label=label)
    axes.set(
        xlabel=f"turn of a chat with {pictures} pictures", ylabel="seconds to the first token", xlim=(0.5, turns + 0.5), ylim=0
    )
    axes.set_xticks([1, *range(5, turns + 1, 5)])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    partial = file.with_name(f".{file.name}.partial")
    figure.savefig(partial, dpi=130, format="png")
    partial.replace(file)


def cold_first_turn(stage: Stage, file: Path) -> float:
    """What a first turn with a picture costs more than without anything being kept, in percent."""
    stage.extensions.loaded[:] = [(stage.script, "multimodal_vcla")]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(30):
        is_on = number % 2 == 0
        stage.script.params["prefix_cache"] = is_on
        stage.forget()
        state = stage.chat.new_state(instruction_template_str=TEMPLATE, truncation_length=100_000)
        seconds[is_on].append(stage.turn("What is in it?", state, [file]))
    return 100 * (statistics.median(seconds[True]) / statistics.median(seconds[False]) - 1)


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


def measure(folder: Path, side_px: int, cases: list[tuple[int, int]], llama: tuple[Path, Path] | None = None) -> dict:
    """Everything; `llama` names llama.cpp's server and the GGUF file of the same language model."""
    stage = Stage(folder)
    with tempfile.TemporaryDirectory() as name:
        files = []
        for number in range(max(PICTURES) + 1):
            files.append(Path(name) / f"{number}.jpg")
            Image.effect_noise((side_px, side_px), 20 + 8 * number).convert("RGB").save(files[-1])
        stage.another = files.pop()
        stage.conversation(1, files[:1], "ours")  # loads the vision model
        rows = []
        for num_turns, num_pictures in cases:
            for way in ("text", "ours", "anew"):
                if way != "text" or num_pictures == 0:
                    seconds, with_new = stage.conversation(num_turns, files[:num_pictures], way)
                    row = {"turns": num_turns, "pictures": num_pictures, "way": way, "last_turn_s": seconds[-1]}
                    row |= {"per_turn_s": statistics.mean(seconds), "each_turn_s": seconds, "new_picture_s": with_new}
                    rows.append(row)
        result = {"model": folder.name, "picture_px": side_px, "threads": torch.get_num_threads(), "conversations": rows}
        return {
            **result,
            "growth": growth(stage, files[:5]),
            "cold_first_turn_percent": cold_first_turn(stage, files[0]),
            "sight": sights(stage, files[0]),
            "text_share_percent": text_share(stage),
            **({"llama_cpp": beside_llama(stage, *llama)} if llama else {}),
        }


def folder_of_gguf(file: Path, folder: Path) -> Path:
    """A model folder for the web UI: the language model of a GGUF file, and a vision model of random weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from pipelines.visualcla import VisualCLAConfig, VisualCLAProcessor, VisualCLAVisionModel, add_image_tokens

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    sizes = loaded.config.to_dict()
    sizes.pop("quantization_config", None)
    language_model = type(loaded)(
        type(loaded.config).from_dict(sizes)
    )  # one that can be saved: the loaded one counts as quantised
    language_model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(**where)
    add_image_tokens(tokenizer)
    language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = VisualCLAConfig(
        text_config=language_model.config.to_dict(),
        vision_config={**sizes, "model_type": "clip_vision_model", "patch_size": 16, "image_size": 224, "projection_dim": 512},
        image_token_id=tokenizer.convert_tokens_to_ids("<img_token>"),
    )
    language_model.save_pretrained(folder)
    VisualCLAVisionModel(config).save_pretrained(folder / "vision")
    size = {"height": 224, "width": 224}
    processor = VisualCLAProcessor(CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size=size), tokenizer)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder / "vision")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "model", help="model folder with a vision model")
    parser.add_argument("--side", type=int, default=768, metavar="PX", help="side of the pictures")
    parser.add_argument("--json", action="store_true", help="print everything that was measured as JSON")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="measure a LLaMA of this file instead; see above")
    parser.add_argument("--bars", action="store_true", help="only turn 10 with 5 pictures and turn 20 with 10")
    parser.add_argument("--llama_server", type=Path, metavar="FILE", help="with --gguf: llama.cpp's server, to compare with")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the longest conversation, turn by turn, as a PNG")
    options = parser.parse_args()
    if options.llama_server is not None and (options.gguf is None or not options.llama_server.is_file()):
        parser.error("--llama_server is a file, and wants --gguf: both run the same language model.")
    llama = None if options.llama_server is None else (options.llama_server.resolve(), options.gguf)
    with tempfile.TemporaryDirectory() as name:
        if options.gguf is not None:
            if not options.gguf.is_file():
                parser.error(f"{str(options.gguf)!r} is not there.")
            options.model = folder_of_gguf(options.gguf, Path(name) / options.gguf.stem)
        if not (options.model / "vision" / "config.json").is_file():
            parser.error(f"{str(options.model)!r} is no model folder with a vision model: 'vision/config.json' is missing.")
        cases = BARS if options.bars else [(turns, pictures) for turns in TURNS for pictures in PICTURES]
        result = measure(options.model.resolve(), options.side, cases, llama)
    if options.plot is not None:
        plot(result, options.plot)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"{result['model']}, JPEGs of {options.side} x {options.side}, {result['threads']} threads; seconds to the first token"
    )
    print(f"{'turns':>6}{'pictures':>10}{'way':>8}{'last turn':>12}{'per turn':>12}{'new picture':>13}")
    for row in result["conversations"]:
        with_new = "" if row["new_picture_s"] is None else f"{row['new_picture_s']:.4f}"
        print(
            f"{row['turns']:>6}{row['pictures']:>10}{row['way']:>8}{row['last_turn_s']:>12.4f}{row['per_turn_s']:>12.4f}{with_new:>13}"
        )
    last = {(row["turns"], row["pictures"], row["way"]): row["last_turn_s"] for row in result["conversations"]}
    for turns, pictures in BARS:
        ratio = last[turns, pictures, "anew"] / last[turns, pictures, "ours"]
        print(f"Turn {turns} with {pictures} pictures: {ratio:.1f} times faster than anew.")
    grown = result["growth"]
    print(
        f"Turn 20 against turn 2, with 5 pictures: {grown['ratio']:.2f} times; {grown['kept_bytes'] / 2**20:.1f} MiB are kept for "
        f"{grown['tokens']} tokens."
    )
    print(f"A first turn costs {result['cold_first_turn_percent']:+.1f} %.")
    first, again = result["sight"]["first_s"], result["sight"]["again_s"]
    print(f"A picture: first sight {1e3 * first:.2f} ms, again {1e3 * again:.4f} ms, {first / again:.0f} times less.")
    print(f"The plugin's share of a text-only turn: {result['text_share_percent']:.2f} %")
    if llama is not None:
        beside = result["llama_cpp"]
        for name, who in (("ours", "Ours"), ("llama_cpp", "llama.cpp's server")):
            of = beside[name]
            print(f"{who}, text alone: turn 2 {of['turn_2_s']:.4f} s, turn 20 {of['turn_20_s']:.4f} s, {of['ratio']:.2f} times")
        print(f"Our growth by theirs: {beside['growth_ratio']:.2f}")


if __name__ == "__main__":
    main()
