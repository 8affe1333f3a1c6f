"""An output folder that appears whole or not at all, and a way to go on after a kill.

Work happens in a hidden sibling:

    .NAME.unfinished/model/            becomes NAME by one rename at the end
    .NAME.unfinished/recipe.sha256     what it is made for: a later run of the same recipe keeps the finished files
    .NAME.unfinished/lock              held by the process that makes it
    .NAME.unfinished/replaced/         the model that NAME was, for the moment between two renames
"""

import contextlib
import os
import shutil
from pathlib import Path


class OutputFolder:
    """A folder in the making.

    Args:
        target: the folder to make.
        recipe: a hash of everything that decides the content of the weight files.
        inputs: folders that must not be touched.
        force: replace a model that is there already.

    Attributes:
        folder: where to write.

    Raises:
        On entering:
        FileExistsError: `target` is there and `force` is not given, or it is no model folder.
        ValueError: `target` is, holds, or lies in an input.
        BlockingIOError: another process is making the same folder.
    """

    def __init__(self, target: Path, recipe: str, inputs: list[Path], force: bool):
        self.target = Path(os.path.abspath(target.expanduser()))
        self._work = self.target.with_name(f".{self.target.name}.unfinished")
        self._replaced = self._work / "replaced"
        self.folder = self._work / "model"
        self._recipe, self._inputs, self._force = recipe, inputs, force
        self._lock: int | None = None

    def __enter__(self) -> "OutputFolder":
        self._check_inputs()
        is_new = not self._work.exists()
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if self._replaced.exists() and not self.target.exists():
                self._replaced.rename(self.target)  # a run was killed between the two renames
            self._check_target()
            self._start()
        except BaseException:
            self.__exit__()
            if is_new:
                shutil.rmtree(self._work, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_) -> None:
        if self.folder.is_dir() and not any(path.is_file() for path in self.folder.rglob("*")) and not self._replaced.exists():
            shutil.rmtree(self._work, ignore_errors=True)  # nothing to go on with
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_finished(self, path: str) -> bool:
        """Whether an earlier run of this recipe finished a file."""
        return (self.folder / path).is_file()

    def write(self, path: str, content: bytes) -> None:
        """Write a small file and bring it to the disk."""
        write_file(self.folder / path, content)

    def check_space(self, needed_bytes: int) -> None:
        """Compare what will be written with what is free.

        Raises:
            OSError: it does not fit.
        """
        free_bytes = shutil.disk_usage(self._work).free
        if needed_bytes > free_bytes:
            raise OSError(
                f"{needed_bytes / 1e9:.2f} GB are needed at {str(self.target.parent)!r}, but only {free_bytes / 1e9:.2f} GB are "
                "free. Free some, or give another output_dir."
            )

    def publish(self) -> None:
        """Give the folder its name."""
        for folder in [self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())]:
            _sync_folder(folder)
        if self.target.is_dir() and not any(self.target.iterdir()):
            self.target.rmdir()
        elif self.target.exists():
            self.target.rename(self._replaced)
        self.folder.rename(self.target)
        _sync_folder(self.target.parent)
        shutil.rmtree(self._work)

    def _start(self) -> None:
        """Keep what the same recipe finished, drop everything else."""
        known = self._work / "recipe.sha256"
        if not known.is_file() or known.read_text(encoding="utf-8") != self._recipe:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_file(known, self._recipe.encode())
        shutil.rmtree(self._replaced, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        for part in self.folder.rglob("*.part"):
            part.unlink()

    def _check_inputs(self) -> None:
        target = Path(os.path.realpath(self.target))
        for folder in map(Path, map(os.path.realpath, self._inputs)):
            if target == folder or target in folder.parents or folder in target.parents:
                raise ValueError(
                    f"The output {str(self.target)!r} and the input {str(folder)!r} lie in each other; inputs are never written. "
                    "Give another output_dir."
                )

    def _check_target(self) -> None:
        if not os.path.lexists(self.target):
            return
        if self.target.is_dir() and not any(self.target.iterdir()):
            return
        if not self._force:
            raise FileExistsError(f"{str(self.target)!r} is there already. Give another output_dir, or --force to replace it.")
        names = ("config.json", "adapter_config.json", "*/adapter_config.json")
        if self.target.is_symlink() or not any(path for name in names for path in self.target.glob(name)):
            raise FileExistsError(
                f"{str(self.target)!r} is no model folder (none of {names}), so --force does not replace it. Remove it yourself, "
                "or give another output_dir."
            )

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        self._lock = os.open(self._work / "lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BlockingIOError(f"Another process is making {str(self.target)!r}. Wait for it, or end it.") from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, and bring it to the disk."""
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
