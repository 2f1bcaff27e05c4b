"""The command line as a user meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

import fsl_cli.cli
import fsl_cli.sweeps.sweep
from fsl_cli import __version__
from fsl_cli.cli import VERBS, run
from fsl_cli.doctor import backbones
from fsl_cli.doctor.backbones import HEADER, measured
from fsl_cli.errors import Interrupted
from fsl_cli.experiment.trainer import quiet
from fsl_cli.settings.registry import choices

FAST = ("--help", "--version", "ls", "ls algo", "train --help", "trian")


@pytest.mark.parametrize("line", FAST)
def test_quick_words_never_import_torch(line: str) -> None:
    code = (
        f"import sys; sys.argv = ['fsl', *{line.split()!r}]\nfrom fsl_cli.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pytorch_lightning', 'hydra'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_terminal_that_has_no_plus_minus_is_told_all_the_same() -> None:
    ascii_only = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    ascii_only |= {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "fsl_cli", "ls"], capture_output=True, text=True, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert "\\xb1" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples_and_what_they_print(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([verb, "--help"])
    shown = capsys.readouterr().out
    assert f"  fsl {verb}" in shown
    assert "rints" in shown


def test_version_and_module(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "fsl_cli", "--version"], capture_output=True, text=True)
    assert done.stdout == f"fsl {__version__}\n"


def test_ls_shows_each_file_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    run(["ls", "algo"])
    shown = capsys.readouterr().out
    assert "MAML: a learned initialisation" in shown
    assert "data" not in shown.splitlines()


def test_ls_backbone_measures_fsls_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "backbone").mkdir()
    own = tmp_path / "backbone" / "mine.yaml"
    own.write_text("# Mine, which runs code\n_target_: os.system\ncommand: touch ran\n")
    assert measured("conv4").split()[:2] == ["112,832", "1600"]
    assert float(measured("conv4").split()[2]) > 0
    assert measured("torchvision").strip() == "by name"
    assert measured("mine", str(tmp_path)).strip() == "not built"
    assert {len(measured(name)) for name in ("conv4", "mlp", "timm")} == {len(HEADER)}


def test_ls_backbone_shows_a_line_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "measured", lambda name, user_dir: f"<{name}>")
    run(["ls", "backbone"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["backbone", "parameters", "features"]
    assert "  conv4         <conv4>  Four blocks of 3x3 convolution" in "\n".join(lines)
    assert [line.split()[0] for line in lines] == list(choices("backbone"))


def test_show_says_where_each_value_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    run(["show", "algo=maml", "data=omniglot", "way=20"])
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["way"][0] == "20"
    assert rows["inner_lr"] == ["0.1", "conf/recipe/maml_omniglot.yaml"]
    run(["show", "algo=rfs", "data=miniimagenet"])
    assert ["36000", "0.1", "conf/recipe/rfs_miniimagenet.yaml"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]  # a table's keys are numbers


def test_check_fetches_and_trains_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run(["check", "algo=maml", "data=omniglot", "backbone.filters=8"])
    said = capsys.readouterr().out
    assert said == "These settings fit together. images_background.zip is not here: its classes are not counted.\n"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "kernels" not in path.parts]


@pytest.mark.parametrize(
    ("line", "offered"),
    [("fsl train algo=proton", "algo=protonet"), ("fsl show data=om", "data=omniglot"), ("fsl trai", "train")],
)
def test_completion_answers_what_the_shell_asks_when_tab_is_pressed(line: str, offered: str) -> None:
    environment = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "fsl_cli", "-sc", "query=bash"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [offered], done.stderr


@pytest.mark.parametrize("code", [130, 143])
def test_the_exit_code_tells_the_signal(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(words: list[str]) -> None:
        raise Interrupted("Stopped.", code)

    monkeypatch.setattr(fsl_cli.cli, "run", stopped)
    with pytest.raises(SystemExit) as ended:
        fsl_cli.cli.main()
    assert ended.value.code == code


def test_lightning_does_not_end_the_process_itself() -> None:
    with pytest.raises(Interrupted) as stopped, quiet():
        raise SIGTERMException  # what it raises where SIGTERM came during a test
    assert stopped.value.code == 143
    after_ctrl_c = SystemExit(1)
    after_ctrl_c.__context__ = KeyboardInterrupt()
    with pytest.raises(Interrupted) as stopped, quiet():
        raise after_ctrl_c
    assert stopped.value.code == 130


def test_a_sweep_ends_with_the_code_of_its_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("Stopped.", 143)

    monkeypatch.setattr(fsl_cli.sweeps.sweep, "through_hydra", stopped)
    with pytest.raises(Interrupted) as ended:
        fsl_cli.cli.run(["train", "-m", "seed=0,1", f"out={tmp_path}", "data.train_classes=60", "data.size=16"])
    assert ended.value.code == 143
