"""State of the stand-in: a test sets what it needs."""

import threading
from pathlib import Path
from types import SimpleNamespace

model = tokenizer = None
model_name = "None"
lora_names: list[str] = []
bos_token, eos_token = "<s>", "</s>"
settings: dict = {"truncation_length": 2048}
default_settings: dict = {}
gradio: dict = {}
generation_lock = threading.Lock()
user_data_dir = Path("user_data")
args = SimpleNamespace(
    loader="Transformers", model_dir="models", multi_user=False, cpu=True, extensions=[], api=True, lora=None
)
