"""vLLM as a server of its own process, with the plugin of this checkout, in the environment that VLLM_PYTHON names."""

import base64
import io
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = os.environ.get("VLLM_PYTHON")
START_S = 600


def entry_point(folder: Path) -> Path:
    """A folder for the path, which holds this checkout's plugin as if it were installed."""
    entry = folder / "multimodal_vcla-0.dist-info"
    entry.mkdir(parents=True)
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: multimodal-vcla\nVersion: 0\n")
    (entry / "entry_points.txt").write_text("[vllm.general_plugins]\nmultimodal_vcla = serving.vllm_plugin:register\n")
    return folder


@contextmanager
def serving(folder: Path, tmp: Path, *flags: str, has_plugin: bool = True) -> Iterator[str]:
    """Serve a model folder in float32 on the CPU; gives the address of the API.

    Raises:
        RuntimeError: it does not start; its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    variables |= {
        "PYTHONPATH": f"{entry_point(tmp)}{os.pathsep}{ROOT}",
        "VLLM_PLUGINS": "multimodal_vcla" if has_plugin else "",
    }
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "model"]
    command += ["--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port), *flags]
    with open(tmp / "log.txt", "wb") as log:
        server = subprocess.Popen(command, cwd=tmp, env={**os.environ, **variables}, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + START_S
            while not _is_up(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((tmp / "log.txt").read_text(errors="replace")[-6000:])
                with suppress(subprocess.TimeoutExpired):
                    server.wait(0.5)
            yield f"{url}/v1"
        finally:
            server.terminate()
            server.wait(60)


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except OSError:
        return False


def post(url: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """(status, reply)."""
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def picture_item(image: Image.Image) -> dict[str, Any]:
    """A picture as the API takes it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return raw_item(file.getvalue())


def raw_item(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}
