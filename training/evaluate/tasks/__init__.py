"""The tasks by name; each is a file here."""

from .base import ImageFolder, Question, Task, Verdict
from .captions import Captions
from .choice import Choice
from .gavie import Gavie
from .llava_bench import LlavaBench
from .mme import Mme
from .owleval import OwlEval
from .pope import Pope
from .rows import Rows
from .svt import Svt
from .vqa import Vqa

TASKS: dict[str, Task] = {
    task.name: task for task in (Rows(), OwlEval(), LlavaBench(), Pope(), Mme(), Choice(), Vqa(), Svt(), Captions(), Gavie())
}

__all__ = ["TASKS", "ImageFolder", "Question", "Task", "Verdict"]
