"""fsl check finds what fsl train would refuse before its first step, for one run and for all of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

import fsl_cli.experiment.training
from fsl_cli.cli import run
from fsl_cli.errors import UserError

SMALL = [
    "data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.size=16", "train_query=2", "query=2",
    "train_way=5", "backbone.filters=4", "steps=4", "val_every=2", "val_episodes=4", "episodes=5", "trainer=cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a cache of its own, in which nothing may be trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fsl_cli.experiment.training, "train", lambda *_: pytest.fail("this was to be refused"))
    return tmp_path


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as refused:
        run(list(words))
    return str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        "way=1", "algo=maml way=1", "way=7", "shot=30", "optim.lr=-1", "algo=maml norm=running", "trainer.precision=33",
        "trainer.strategy=foo", "backbone=mlp backbone.widths=[]", "init=nowhere", "data=folder data.root=nowhere",
        "algo=protonet backbone.frozen=true", "data=folder data.size=16",
    ],
)  # fmt: skip
def test_check_and_train_refuse_the_same_in_the_same_words(words: str, place: Path) -> None:
    known = [word for word in SMALL if not ("data=folder" in words and word.startswith("data."))]
    said = refusal("check", *known, *words.split())
    assert refusal("train", *known, *words.split()) == said
    assert not list(place.glob("outputs/*"))


def test_what_fits_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    run(["check", *SMALL])
    assert capsys.readouterr().out == (
        "These settings fit together. glyphs: 12 classes for training, 6 for validation, 6 for the test; 480 images.\n"
    )


def test_a_data_set_that_would_be_fetched_is_stood_in_for() -> None:
    rest = [word for word in SMALL if not word.startswith("data.")]
    assert "nothing to tell apart" in refusal("check", *rest, "data=omniglot", "algo=maml", "way=1")
    assert "norm=support" in refusal("check", *rest, "data=omniglot", "algo=maml", "norm=running")
    run(["check", *rest, "data=omniglot", "algo=maml", "norm=support", "attack=pgd"])  # the stand-in can be attacked


def test_all_runs_of_a_sweep_are_looked_at_before_the_first(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "check"):
        said = refusal(verb, "-m", *SMALL, "optim.lr=0.1,-1", "way=5,7", "seed=range(0,2)").splitlines()
        assert said[0] == "6 of 8 runs of this sweep cannot be; none was started."
        assert said[1].startswith("optim.lr=0.1 way=7 seed=0: way=7 needs 7 classes")
    said = refusal("train", "-m", *SMALL, "algo=maml,protonet", "algo.scale=3")
    assert (
        "1 of 2 runs" in said and "algo=maml: 'algo.scale' is not a setting of algo=maml; algo.scale is one of" in said
    )
    assert not list(place.glob("outputs/**/*.json"))
    run(["check", "-m", *SMALL, "optim.lr=0.1,0.2", "seed=range(0,3)"])
    assert capsys.readouterr().out == "The settings of all 6 runs fit together.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("seed=range(0,0)", "seed=range(0,0): there is nothing in it to sweep over"),
        (
            "hydra/sweeper=optuna hydra.sweeper.n_trials=0",
            "hydra.sweeper.n_trials=0: must be a whole number of at least 1",
        ),
        ("algo=maml,protonett", "algo=protonett: there is no such algo. Did you mean protonet?"),
        ("algo=glob(x*)", "algo=glob(x*): there is nothing in it to sweep over"),
        ("algo=glob(*omaml) optim.lr=-1", "2 of 2 runs of this sweep cannot be"),
        ("out=glob(*)", "out=glob(*): glob chooses among the files of a group"),
        ("optim.lr=interval(0.1,1)", "an interval is for a search. Type hydra/sweeper=optuna"),
        ("hydra/sweeper=optuna way=7 optim.lr=interval(0.1,1)", "way=7 needs 7 classes"),
        ("hydra/sweeper=optuna optim.lr=interval(-1,1)", "optim.lr=-1.0: must be above 0"),
    ],
)
def test_an_empty_sweep(place: Path, words: str, says: str) -> None:
    assert says in refusal("train", "-m", *SMALL, *words.split())
    assert not list(place.glob("outputs/*/*")) and not list(place.glob("outputs/.sweeps/*"))
