"""Time and memory of `python -m training merge` on a synthetic model, against a plain copy of the same bytes.

    python benchmarks/merge.py --json            7B: LLaMA-7B, CLIP ViT-L/14, an adapter of 1.03 GB; about 45 GB of disk
    python benchmarks/merge.py --size small      the same in miniature

Both are measured cold (the files' pages are dropped from the cache first) and to the disk (fsync), in one run. The copy is
`cp --reflink=never` of the merged folder's bytes. Memory is the peak resident size of the merging process above what it has
after its imports. Everything is made in a temporary folder and removed.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipelines.own_python import hand_over  # noqa: E402

if __name__ == "__main__":
    hand_over(__file__)

import torch  # noqa: E402
from transformers import CLIPVisionConfig, LlamaConfig  # noqa: E402

from pipelines.visualcla import VisualCLAConfig, VisualCLAVisionModel  # noqa: E402
from training.merge.products import Product  # noqa: E402
from training.merge.shards import Shard, open_writer  # noqa: E402

TOKENIZER = ROOT / "tests" / "golden" / "visualcla" / "release" / "visualcla-tiny"
WRITTEN_BYTES = 2**23

MEASURED = """
import json, sys, time
from pathlib import Path
import training.merge.verify  # what the verb imports, at the latest while it runs
before = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
start, start_cpu = time.perf_counter(), time.process_time()
status = training.merge.main(sys.argv[1:])
wall_s = time.perf_counter() - start
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
cpu_s = time.process_time() - start_cpu
print(json.dumps({"status": status, "wall_s": wall_s, "cpu_s": cpu_s,
                  "imports_gb": before * 1024 / 1e9, "peak_gb": peak * 1024 / 1e9}))
"""


@dataclass(frozen=True)
class Size:
    """Shapes of a synthetic model; tokens are those after the adapter."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vision_layers: int
    tokens: int


SIZES = {
    "7b": Size(4096, 11008, 32, 32, 24, 49958),
    "small": Size(2048, 5504, 4, 16, 2, 8000),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--container", choices=("legacy", "flat"), default="flat", help="of the adapter's pickle")
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes the folder
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="merge-benchmark-") as scratch:
        result = measure(Path(scratch), SIZES[options.size], options.container)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(
            f"merge {result['merge_s']:.1f} s, copy {result['copy_s']:.1f} s, ratio {result['ratio']:.2f}; "
            f"peak {result['peak_above_imports_gb']:.2f} GB above imports"
        )
    return 0


def measure(scratch: Path, size: Size, container: str) -> dict[str, float]:
    text, vision, adapter, merged = (scratch / name for name in ("text", "vision", "adapter", "merged"))
    make_models(size, container, text, vision, adapter)
    drop_cache(scratch)
    flags = ["--text_model", text, "--vision_model", vision, "--lora_model", adapter, "--output_dir", merged]
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, flags)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    merge = json.loads(run.stdout.splitlines()[-1])
    if merge["status"]:
        raise SystemExit("the merge failed")
    num_bytes = sum(path.stat().st_size for path in merged.rglob("*") if path.is_file())
    drop_cache(scratch)
    start = time.perf_counter()
    subprocess.run(["cp", "-r", "--reflink=never", merged, scratch / "copy"], check=True)
    for path in (scratch / "copy").rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    copy_s = time.perf_counter() - start
    return {
        "output_gb": num_bytes / 1e9,
        "adapter_gb": sum(path.stat().st_size for path in adapter.glob("adapter_model.*")) / 1e9,
        "merge_s": merge["wall_s"],
        "merge_cpu_s": merge["cpu_s"],
        "copy_s": copy_s,
        "ratio": merge["wall_s"] / copy_s,
        "imports_gb": merge["imports_gb"],
        "peak_above_imports_gb": merge["peak_gb"] - merge["imports_gb"],
    }


def make_models(size: Size, container: str, text: Path, vision: Path, adapter: Path) -> None:
    """A language model in two pickles, a vision encoder, and an adapter in the release's format over both."""
    rows = size.tokens - 4
    llama = LlamaConfig(
        vocab_size=rows,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
    )
    clip = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": size.vision_layers, "num_attention_heads": 16}
    clip |= {"patch_size": 14, "image_size": 224, "projection_dim": 768}
    config = VisualCLAConfig(text_config=llama.to_dict(), vision_config=clip)
    with torch.device("meta"):
        from transformers import LlamaForCausalLM

        text_shapes = {name: tuple(tensor.shape) for name, tensor in LlamaForCausalLM(llama).state_dict().items()}
        eyes_shapes = {name: tuple(tensor.shape) for name, tensor in VisualCLAVisionModel(config).state_dict().items()}
    vision_shapes = {name: shape for name, shape in eyes_shapes.items() if name.startswith("vision_model.")}
    names = list(text_shapes)
    half = len(names) // 2
    for number, part in enumerate((names[:half], names[half:]), start=1):
        write(text / f"pytorch_model-{number:05}-of-00002.bin", {name: text_shapes[name] for name in part})
    weight_map = {name: f"pytorch_model-{1 + (names.index(name) >= half):05}-of-00002.bin" for name in names}
    (text / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (text / "config.json").write_text(json.dumps(llama.to_dict()))
    write(vision / "pytorch_model.bin", vision_shapes)
    (vision / "config.json").write_text(json.dumps(CLIPVisionConfig(**clip).to_dict()))
    make_adapter(size, container, adapter, text_shapes, eyes_shapes, config)


def make_adapter(
    size: Size, container: str, folder: Path, text_shapes: dict, eyes_shapes: dict, config: VisualCLAConfig
) -> None:
    shapes = {name: shape for name, shape in eyes_shapes.items() if not name.startswith("vision_model.")}
    shapes |= {f"text_model.{name}": (size.tokens, size.hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    layers = {f"text_model.{name}": shape for name, shape in text_shapes.items() if "_proj." in name}
    layers |= {
        f"vision_model.{n}": s for n, s in eyes_shapes.items() if n.endswith((".weight",)) and ("_proj." in n or ".fc" in n)
    }
    for name, (rows, columns) in layers.items():
        module = name.removesuffix(".weight")
        shapes |= {f"{module}.lora_A.weight": (8, columns), f"{module}.lora_B.weight": (rows, 8)}
    tensors = {f"base_model.model.{name}": shape for name, shape in shapes.items()}
    folder.mkdir(parents=True)
    # One storage under all tensors, or the container before the zip one: the release is one of the two.
    flat = torch.zeros(sum(torch.Size(shape).numel() for shape in tensors.values()), dtype=torch.float16).uniform_(-0.02, 0.02)
    views, start = {}, 0
    for name, shape in tensors.items():
        views[name] = flat[start : (start := start + torch.Size(shape).numel())].view(shape)
    torch.save(views, folder / "adapter_model.bin", _use_new_zipfile_serialization=container != "legacy")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 32}))
    (folder / "config.json").write_text(config.to_json_string())
    # A real release's sentencepiece model is not at hand; the sizes are what counts here.
    for path in TOKENIZER.iterdir():
        if "token" in path.name or path.name == "preprocessor_config.json":
            shutil.copy(path, folder)


def write(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A file of fp16 noise in the given shapes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.empty(WRITTEN_BYTES // 2, dtype=torch.float16).uniform_(-0.05, 0.05)
    content = memoryview(noise.view(torch.uint8).numpy())
    products = {name: Product(torch.empty(shape, device="meta"), torch.float16) for name, shape in shapes.items()}
    shard = Shard(path.name, products)
    writer = open_writer(path, shard)
    for name, product in products.items():
        writer.begin(name, product)
        for start in range(0, product.num_bytes, WRITTEN_BYTES):
            writer.write(content[: min(WRITTEN_BYTES, product.num_bytes - start)])
    writer.finish()


def drop_cache(folder: Path) -> None:
    """Forget the pages of all files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
