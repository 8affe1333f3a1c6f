"""Every mutated model folder goes through our readers in a process of its own with limits; run as a script.

    python tests/checkpoint_limits.py CASES MEMORY_BYTES SECONDS

CASES is a file of pickled (folder, file in it, its new content, what to do with it). One line each: "ok ...", "refused REASON", or
"WRONG ...".
"""

import contextlib
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMORY_BYTES, SECONDS = 1_000_000_000, 10
Case = tuple[str, str, bytes, str]


def load_limited(cases: list[Case]) -> list[str]:
    """What became of each case; a process that hits a limit is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "cases"
        stream.write_bytes(b"".join(map(pickle.dumps, cases)))
        command = [sys.executable, "-W", "ignore", __file__, str(stream), str(MEMORY_BYTES), str(SECONDS)]
        variables = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    said = done.stdout.splitlines()
    assert len(said) == len(cases), done.stderr[-2000:]
    return said


def read(folder: Path) -> str:
    """All tensors by our reader, as the library reads them; and the doctor has something to say."""
    import torch

    from pipelines import doctor
    from pipelines.checkpoints.stored_tensors import stored_tensors

    report = doctor.examine(folder, "cpu")
    assert all("\n" not in line for line in report.lines()), report.lines()
    tensors = {name: tensor.read() for name, tensor in stored_tensors(folder).items()}
    total = sum(float(tensor.double().nan_to_num().sum()) for tensor in tensors.values())
    assert all(tensor.device == torch.device("cpu") for tensor in tensors.values())
    with contextlib.suppress(Exception):  # what the library refuses is no yardstick
        theirs = by_library(folder)
        if theirs.keys() != tensors.keys() or not all(same(theirs[name], tensors[name]) for name in theirs):
            return f"WRONG the library reads {sorted(theirs)}, we read {sorted(tensors)}, or other values"
    return f"ok {len(tensors)} {total:.3g}"


def by_library(folder: Path) -> dict:
    import torch
    from safetensors.torch import load_file

    file = next(folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file())
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)


def same(first, second) -> bool:
    import torch

    return first.dtype == second.dtype and torch.equal(first.nan_to_num(), second.nan_to_num())


def inert(folder: Path) -> str:
    """A pickle with foreign classes."""
    from pipelines.checkpoints.torch_pickles import read_pickle

    return f"ok {type(read_pickle(folder / 'pytorch_model.bin')).__name__}"


def adapter(folder: Path) -> str:
    from pipelines.checkpoints.adapters import read_adapter

    return f"ok {len(read_adapter(folder).lora)}"


def ask(folder: Path) -> str:
    """The whole way of `demo ask`, to the first token of an answer."""
    import torch
    from transformers import GenerationConfig

    from pipelines import doctor, load_model
    from pipelines.generation import ChatModel, message
    from pipelines.memory import check_memory

    doctor.examine(folder, "cpu")
    check_memory([folder], 32, "cpu")
    chat = ChatModel(*load_model(folder, dtype=torch.float32))
    return f"ok {chat.answer([message('user', 'what is red')], [], GenerationConfig(do_sample=False, max_new_tokens=1))!r}"


DO: dict[str, Callable[[Path], str]] = {"read": read, "inert": inert, "adapter": adapter, "ask": ask}


def outcome(folder: Path, do: str) -> str:
    """What the command line would make of it: an answer, or one line."""
    try:
        return DO[do](folder)
    except MemoryError as error:
        return f"refused {error}" if str(error).startswith("Loading in") else "WRONG out of memory"
    except (ValueError, OSError, ImportError) as error:
        is_told = folder.parent.name in str(error) or do == "ask"  # later, some speak of "the model's chat template"
        return f"refused {error}" if str(error) and is_told else f"WRONG {error!r} does not say where"
    except BaseException as error:
        return f"WRONG {error!r}"


def run(case: Case, memory: int, seconds: int) -> str:
    import torch

    source, name, content, do = case
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        shutil.copytree(
            source, folder, copy_function=os.link if os.stat(source).st_dev == os.stat(parent).st_dev else shutil.copy
        )
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_AS, (used + len(content) + memory,) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            torch.set_num_threads(1)  # makes anew, alone, the pool that the fork broke; two loading threads would race for that
            os.write(send, " ".join(outcome(folder, do).split()).encode()[:1000])
            os._exit(0)
        os.close(send)
        said = os.read(receive, 1000).decode(errors="replace")
        os.close(receive)
        status = os.waitpid(pid, 0)[1]
    return said or f"WRONG died of signal {status & 127}"


def main() -> None:
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(1)
    memory, seconds = map(int, sys.argv[2:4])
    tried = set()
    with open(sys.argv[1], "rb") as stream:
        while stream.peek(1):
            case = pickle.load(stream)
            if (case[0], case[3]) not in tried:  # the whole folder once in this process: what it imports, its children have
                outcome(Path(case[0]), case[3])
                tried.add((case[0], case[3]))
            print(run(case, memory, seconds), flush=True)


if __name__ == "__main__":
    main()
