"""trust=[…] is given once: a run keeps it, with the files of then, and no stranger's run can claim it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fsl_cli.files import read_json, write_json
from fsl_cli.runs import trust
from fsl_cli.runs.trust import fingerprint
from fsl_cli.settings.schema import targets

CONFIG: dict[str, Any] = {"algo": {"_target_": "mine.nets.Net"}, "optim": {"_target_": "torch.optim.Adam"}}


class Settings:
    def __init__(self, values: dict[str, Any]) -> None:
        self.targets = lambda: list(targets(values))


class Run:
    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder, self.settings = folder, Settings(values)


def trusted(folder: Path, values: dict[str, Any], typed: list[str]) -> list[str]:
    return trust.trusted(Run(folder, values), typed)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's own, which says so where it is imported, and a key of the user's own."""
    package = tmp_path / "mine"
    package.mkdir()
    for name in ("__init__.py", "nets.py"):
        (package / name).write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "run").mkdir()
    return package


def test_it_is_asked_once(tmp_path: Path, mine: Path) -> None:
    run = tmp_path / "run"
    assert trusted(run, CONFIG, []) == []
    assert not list(run.iterdir())
    assert trusted(run, CONFIG, ["mine"]) == ["mine", "mine.nets"]
    assert list(read_json(run / "trust.json")) == ["mine.nets.Net"]
    assert trusted(run, CONFIG, []) == ["mine.nets"]
    assert "mine" not in sys.modules
    other = {**CONFIG, "algo": {"_target_": "mine.nets.Other"}}
    assert trusted(run, other, []) == []


@pytest.mark.parametrize("name", ["__init__.py", "nets.py"])
def test_a_file_that_changed_is_asked_for_again(tmp_path: Path, mine: Path, name: str) -> None:
    run = tmp_path / "run"
    trusted(run, CONFIG, ["mine"])
    (mine / name).write_text("1")
    assert trusted(run, CONFIG, []) == []
    assert trusted(run, CONFIG, ["mine"]) == ["mine", "mine.nets"]
    assert trusted(run, CONFIG, []) == ["mine.nets"]


def test_a_run_of_a_stranger_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    trusted(run, CONFIG, ["mine"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))  # their trust.json, our key
    assert trusted(run, CONFIG, []) == []
    for forged in ({"mine.nets.Net": 1}, {"mine.nets.Net": "é"}, {"mine.nets.Net": ""}, {"mine.nets.Net": None}):
        write_json(run / "trust.json", forged)
        assert trusted(run, CONFIG, []) == []
    (run / "trust.json").write_text("[")
    assert trusted(run, CONFIG, []) == []


def test_what_is_no_file_has_no_fingerprint(tmp_path: Path) -> None:
    assert (
        fingerprint("sys.exit") == fingerprint("nowhere.at.All") == fingerprint("Nothing") == fingerprint("..x") == ""
    )
    assert len(fingerprint("subprocess.run")) == 64


def test_the_key_is_the_users_alone(tmp_path: Path) -> None:
    fingerprint("mine.nets.Net")
    assert (tmp_path / "config" / "fsl" / "trust.key").stat().st_mode & 0o777 == 0o600
