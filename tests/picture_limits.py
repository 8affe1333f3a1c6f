"""Every file goes through `load_image` in a process of its own with limits: what the tests of budget and fuzz share."""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMORY_BYTES, SECONDS = 1_000_000_000, 10
_RUN = """
import os, resource, struct, sys
sys.path.insert(0, sys.argv[1])
from pipelines.images import ImageError, image_size, load_image
from PIL import Image
Image.init()
memory, seconds = map(int, sys.argv[2:4])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
stream = open(sys.argv[4], "rb")
while header := stream.read(4):
    data = stream.read(*struct.unpack("<I", header))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_AS, (used + len(data) + memory,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        try:
            image = load_image(data)
            said = f"{image.mode} {image.width}x{image.height}" if image_size(data) == image.size else "WRONG size"
        except ImageError as error:
            said = f"refused {error.reason}" if "MemoryError" not in error.reason else f"WRONG {error}"
        except BaseException as error:
            said = f"WRONG {error!r}"
        os.write(write, said.encode()[:1000])
        os._exit(0)
    os.close(write)
    said = os.read(read, 1000).decode()
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    print(said.replace(chr(10), " ") or f"WRONG died of signal {status & 127}", flush=True)
"""


def load_limited(files: list[bytes]) -> list[str]:
    """ "RGB 64x48", "refused REASON", or "WRONG ..." for each file; a process that hits a limit is wrong.

    The memory that a file may take is beside the file itself and the interpreter.
    """
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "files"
        with open(stream, "wb") as written:
            for data in files:
                written.write(struct.pack("<I", len(data)) + data)
        command = [sys.executable, "-W", "ignore", "-c", _RUN, str(ROOT), str(MEMORY_BYTES), str(SECONDS), str(stream)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MALLOC_ARENA_MAX": "1"})
    said = done.stdout.splitlines()
    assert len(said) == len(files), done.stderr[-2000:]
    return said
