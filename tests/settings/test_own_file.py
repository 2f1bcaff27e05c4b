"""fsl config to=my.yaml writes what fsl train experiment=my.yaml takes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.settings.compose import compose, provenance
from fsl_cli.settings.registry import choices


@pytest.mark.parametrize(
    "words",
    [
        "algo=maml data=omniglot way=20 optim.lr=3e-4",
        "algo=simpleshot optim=adam",
        "data=[omniglot,cub] data.omniglot.root=here data.rotations=none data.cub.crop=true algo=maml",
        "data=sinusoid algo=cavia",
        "algo=r2d2 data=miniimagenet backbone=resnet12 trainer=ddp trainer.devices=3",
        "logger=[tensorboard,mlflow] optim._target_=torch.optim.RMSprop +optim.alpha=0.9",
        "algo=reptile +schedule.table={0:1.0,100:0.5} augment.crop=0.3",
        *(pytest.param(f"algo={algo}", marks=pytest.mark.slow) for algo in choices("algo")),
    ],
)
def test_what_is_written_is_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    file = tmp_path / "my own (é).yaml"
    run(["config", *words.split(), f"to={file}"])
    before, after = compose(words.split()), compose([f"experiment={file}"])
    assert after.values == before.values
    assert {**after.choices, "experiment": ""} == {**before.choices, "experiment": ""}


def test_it_can_be_edited_and_what_is_typed_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(["config", "algo=maml", "data=omniglot", "to=my.yaml"])
    text = Path("my.yaml").read_text()
    assert "inner_steps: '${by:${way},{5: 1, 20: 5}}'  # gradient steps on the support set while training" in text
    Path("my.yaml").write_text(text.replace("way: 5  #", "way: 20  #").replace("seed: 0", "seed: 7"))
    values = compose(["experiment=my.yaml", "seed=8"]).values
    assert (values["way"], values["train_way"], values["algo"]["inner_steps"], values["seed"]) == (20, 20, 5, 8)
    sources = provenance(["experiment=my.yaml", "seed=8"])
    assert (sources["way"], sources["seed"]) == (str(tmp_path / "my.yaml"), "your command line")


def test_it_lies_among_files_of_ones_own_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    run(["config", "algo=maml", "shot=5"])
    (tmp_path / "experiment" / "my.yaml").write_text(capsys.readouterr().out)
    assert compose(["experiment=my"], str(tmp_path)).values == compose(["algo=maml", "shot=5"]).values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("way: [", "cannot be read"),
        ("- 1", "holds no settings"),
        ("trust: [os]", "trust stands in no file of settings"),
        ("hydra: {run: {dir: /tmp}}", "hydra stands in no file of settings"),
        ("hydra.run.dir: x", "hydra stands in no file of settings"),
        ("wya: 3", "wya: nothing reads it"),
    ],
)
def test_a_file_that_cannot_be_taken(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=says):
        run(["check", f"experiment={file}"])


def test_a_file_is_never_lost(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("mine")
    for words, says in (([f"to={file}"], "there already"), (["to=my.txt"], "must end in .yaml")):
        with pytest.raises(UserError, match=says):
            run(["config", *words])
    assert file.read_text() == "mine"
    with pytest.raises(UserError, match="no such file. fsl config to=nowhere.yaml writes one"):
        run(["check", "experiment=nowhere.yaml"])
