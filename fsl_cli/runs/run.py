"""A run is an object: its folder, and what its files say, each read once."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from fsl_cli import __version__
from fsl_cli.errors import UserError, command
from fsl_cli.files import first_process, read_json, read_rows, read_text, read_yaml, write_json, write_text
from fsl_cli.runs.places import with_own_cache
from fsl_cli.runs.records import Calibration, Record, Result, Training, read, write
from fsl_cli.settings.schema import Settings, is_of_a_run, root_problems, shape_problems, typed
from fsl_cli.settings.upgrade import upgraded


class Run:
    """A folder that fsl train made:

    config.yaml overrides.txt environment.json      what was asked for, and where it ran
    changes.diff                                    how fsl differed from its commit, where it did
    classes.json                                    which classes each split holds
    checkpoints/best.ckpt checkpoints/last.ckpt     by validation; for resuming
    metrics.csv curves.png                          one row a validation
    training.json                                   written when training is over
    calibration.json                                the temperature of its logits, fitted on validation episodes
    tracking.json                                   the run's ids in trackers, with logger=
    result.json episodes.csv                        the test; those of later `fsl test` in tests/NAME/
    classes.csv confusion.csv confusion.png         the same by class, where classes recur
    """

    def __init__(self, folder: str | Path) -> None:
        """Reads nothing yet. What the folder lacks is reported when it is asked for. Raises UserError for no name."""
        if not str(folder):
            raise UserError(
                "Which run? A folder's name is empty here. Type one that fsl train made, such as outputs/…."
            )
        self.folder = Path(folder).expanduser()
        self._records: dict[type, Any] = {}

    def begin(self, settings: Settings, overrides: list[str]) -> None:
        """Write its settings and the typed words into a new folder."""
        self.__dict__ |= {"settings": settings, "overrides": list(overrides)}
        write_text(self.folder / "config.yaml", yaml.safe_dump(settings.plain(), sort_keys=False))
        write_text(self.folder / "overrides.txt", "".join(f"{word}\n" for word in overrides))

    @classmethod
    def unwritten(cls, settings: Settings) -> Run:
        """A run of these settings that has no folder yet."""
        run = cls(os.devnull)
        run.__dict__["settings"] = settings
        return run

    def __str__(self) -> str:
        return str(self.folder)

    @cached_property
    def settings(self) -> Settings:
        """What the run was started with, and a cache that is the user's. Its parts are not bound yet: see
        `binding.demand_parts`.

        Raises UserError when the folder holds no run, or one with a configuration that cannot be read.
        """
        path = self.folder / "config.yaml"
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: there is no such folder. Type one that fsl train made, such as outputs/….")
        if not path.exists():
            raise UserError(f"{self.folder} holds no run: it has no config.yaml. Type a folder that fsl train made.")
        values = read_yaml(path)
        if not is_of_a_run(values):
            raise UserError(f"{path} is not the configuration of a run.")
        values = upgraded(values)
        if found := [*root_problems(values), *shape_problems(values)]:
            raise UserError("\n".join([f"{path} does not fit this fsl:", *found]) + self.of_another_version())
        return with_own_cache(typed(values))

    @property
    def training(self) -> Training | None:
        """How its training ended; None while it is not over. Raises UserError when that cannot be read."""
        return self._record(Training, f"Train again: {command('fsl', 'train', f'resume={self.folder}')}")

    @property
    def result(self) -> Result | None:
        """Its own test; None while it has none. Raises UserError when that cannot be read."""
        return self._record(Result, f"Test it again: {command('fsl', 'test', f'run={self.folder}')}")

    @property
    def calibration(self) -> Calibration | None:
        """The temperature of its logits; None if it was not fitted, or not for its present best checkpoint."""
        return self._record(Calibration, f"Delete it, or test again: {command('fsl', 'test', f'run={self.folder}')}")

    def _record(self, kind: type[Record], advice: str) -> Record | None:
        """A record, read when it is there: a run that is being trained has none yet."""
        if kind not in self._records and (self.folder / kind.FILE).exists():
            self._records[kind] = read(self.folder, kind, advice)
        return self._records.get(kind)

    @cached_property
    def overrides(self) -> list[str]:
        """The settings that were typed for it; empty where that is not known."""
        try:
            return [word for word in read_text(self.folder / "overrides.txt").split("\n") if word]
        except UserError:
            return []

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Where it ran; empty where that is not known."""
        try:
            return read_json(self.folder / "environment.json")
        except UserError:
            return {}

    @cached_property
    def classes(self) -> dict[str, dict[str, str]]:
        """Split -> class -> fingerprint of its images; empty where that was not written."""
        path = self.folder / "classes.json"
        found = read_json(path) if path.exists() else {}
        if not all(isinstance(each, dict) for each in found.values()):
            raise UserError(f"{path} is damaged: it must hold the classes of each split.")
        return found

    def of_another_version(self) -> str:
        """The end of an error message if the run was made by another version of fsl; else nothing."""
        version = self.environment.get("fsl", __version__)
        return "" if version == __version__ else f"\nThe run was made by fsl {version}, and this is fsl {__version__}."

    @property
    def best(self) -> Path:
        """The checkpoint that was best in validation."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """The table of its validations."""
        return self.folder / "metrics.csv"

    @property
    def validations(self) -> list[dict[str, float]]:
        """Its validations so far, the numbers of each by name. Raises UserError when the table cannot be read."""
        if not self.metrics.exists():
            return []
        try:
            return [{key: float(value) for key, value in row.items()} for row in read_rows(self.metrics)]
        except ValueError as error:
            raise UserError(f"{self.metrics} is damaged: {error}.") from error

    @property
    def name(self) -> str:
        """maml-omniglot-5w1s/2026-11-27_05-36-29"""
        return f"{self.folder.parent.name}/{self.folder.name}"

    def is_finished(self) -> bool:
        """Whether it has trained to its end, and was tested where it had to be."""
        tested = (self.folder / Result.FILE).exists() or not self.settings.test
        return (self.folder / Training.FILE).exists() and tested

    def end_training(self, training: Training) -> None:
        """Write how training ended."""
        write(self.folder, training)
        self._records[Training] = training

    def take_calibration(self, calibration: Calibration) -> None:
        """Write the temperature of its logits."""
        write(self.folder, calibration)
        self._records[Calibration] = calibration

    def take_result(self, result: Result) -> None:
        """Know its own test, which was just written."""
        self._records[Result] = result

    def is_locked(self) -> bool:
        """Whether a process is writing to the run."""
        lock = FileLock(self.folder / ".lock")
        if not (self.folder / ".lock").exists():
            return False
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except (NotImplementedError, OSError):
            return False
        lock.release()
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """While inside, no other process writes to the run; one that has died holds it no longer.

        Of several processes of one run, the first holds it for all. Raises UserError that says who has it.
        """
        if not first_process():
            yield
            return
        lock, holder = FileLock(self.folder / ".lock"), self.folder / ".holder.json"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.folder} is being written {_who(holder)}. Wait until it ends, or stop it.") from None
        except NotImplementedError:  # a file system without locks
            yield
            return
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            write_json(holder, {"host": platform.node(), "process": os.getpid(), "since": since})
            yield
        finally:
            holder.unlink(missing_ok=True)
            (self.folder / ".lock").unlink(missing_ok=True)
            lock.release()


def _who(holder: Path) -> str:
    try:
        about = read_json(holder)
        return f"by process {about['process']} on {about['host']}, since {about['since']}"
    except (UserError, KeyError):
        return "by another process"
