"""Sweeps: grids whose runs fail, go on and are skipped one by one; searches that are killed, go on and prune."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

import fsl_cli.sweeps.plan
import fsl_cli.sweeps.sweep
from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.experiment.running import start
from fsl_cli.pictures.sweep_screen import sweep_table
from fsl_cli.runs.jobs import Job, read_jobs
from fsl_cli.settings.compose import compose
from fsl_cli.sweeps.outcome import rows as table_rows
from fsl_cli.sweeps.study import demand_same, open_study, reporter
from hydra_plugins.fsl_optuna_sweeper import distribution

SMALL = [
    "data.train_classes=30", "data.val_classes=10", "data.test_classes=10", "data.size=16", "train_query=2", "query=2",
    "train_way=5", "backbone.filters=4", "steps=4", "val_every=2", "val_episodes=4", "episodes=5", "trainer=cpu",
]  # fmt: skip


def runs(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("*/*/config.yaml"))


def notes(out: Path) -> list[Job]:
    """Of the latest sweep."""
    return read_jobs(max(path for path in (out / ".sweeps").iterdir() if path.is_dir()))


def command(out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "fsl_cli", "train", "-m", *SMALL, f"out={out}", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def fsl(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *words), capture_output=True, text=True, env=environment(), timeout=400)


def test_one_failing_run_stops_no_other_and_resume_does_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(config, *more):
        if config.values["optim"]["lr"] == 1:
            raise UserError("no")
        return start(config, *more)

    monkeypatch.setattr(fsl_cli.sweeps.sweep, "start", failing)
    grid = ["train", "-m", *SMALL, f"out={tmp_path}", "optim.lr=1,0.01", "seed=range(0,2)"]
    with pytest.raises(UserError) as failed:
        run(grid)
    summary, *lines = str(failed.value).splitlines()
    assert summary == "2 of 4 runs failed."
    assert [line.partition(":")[0] for line in lines] == ["optim.lr=1 seed=0", "optim.lr=1 seed=1"]
    assert [job.state for job in notes(tmp_path)] == ["failed", "failed", "finished", "finished"]
    finished, half = runs(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    for name in ("training.json", "result.json"):  # as if it was killed at the end of its training
        (half / name).unlink()
    capsys.readouterr()
    with pytest.raises(UserError, match="2 of 4 runs failed"):
        run([*grid, "resume=true"])
    assert [job.state for job in notes(tmp_path)] == ["failed", "failed", "there", "finished"]
    assert runs(tmp_path) == [finished, half]
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert (half / "result.json").exists()
    shown = capsys.readouterr().out
    assert "4 of 4 runs" in shown and f"  2  {finished}" in shown


def test_a_bug_in_one_run_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def broken(config, *more) -> None:
        seen.append(config.values["seed"])
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(fsl_cli.sweeps.sweep, "start", broken)
    with pytest.raises(UserError, match=r"2 of 2 runs failed.\nseed=0: RuntimeError: CUDA out of memory"):
        run(["train", "-m", *SMALL, f"out={tmp_path}", "seed=0,1"])
    assert seen == [0, 1]


def test_the_table_of_a_sweep_says_how_far_each_run_is(tmp_path: Path) -> None:
    header = "step,train_loss,val_accuracy,val_interval,val_loss,learning_rate"
    (tmp_path / "metrics.csv").write_text(f"{header}\n5,1,0.5,0.01,1,1\n10,1,0.25,0.01,1,1\n")
    jobs = [
        Job(0, ["algo=maml", "optim.lr=0.00160519113"], "running", str(tmp_path)),
        Job(1, ["algo=anil"], "failed", message="no"),
        Job(2, ["algo=boil"], "waiting"),
    ]
    console = Console(width=100)
    with console.capture() as shown:
        console.print(sweep_table(table_rows(jobs)))
    rows = [line.split() for line in shown.get().splitlines() if line.strip()]
    assert rows[0] == ["1", "of", "3", "runs"]
    assert ["0", "algo=maml", "optim.lr=0.001605", "running", "10", "50.00%", "±", "1.00%"] in rows
    assert ["1", "algo=anil", "failed"] in rows and ["2", "algo=boil", "waiting"] in rows


def test_a_run_that_falls_behind_is_stopped_and_kept(tmp_path: Path) -> None:
    told = []

    def report(step: int, score: float) -> bool:
        told.append((step, score))
        return step >= 4

    folder = start(compose([*SMALL, "steps=20", "test=false", f"out={tmp_path}"]), report=report).folder
    training = json.loads((folder / "training.json").read_text())
    assert (training["steps"], training["pruned"]) == (4, True)
    assert [step for step, _ in told] == [2, 4]
    assert max(score for _, score in told) == training["best_value"]
    assert (folder / "checkpoints" / "best.ckpt").exists()


def test_a_trial_below_the_median_of_those_before_is_pruned(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    study = open_study(storage, "s", prune_after=2, seed=0, at_a_time=1)
    verdicts = []
    for scores in ([0.5, 0.8], [0.6, 0.9], [0.55, 0.2], [0.9, 0.9]):
        trial = study.ask()
        report = reporter(storage, "s", trial.number, prune_after=2)
        verdicts.append([report(step, score) for step, score in enumerate(scores)])
        study.tell(trial, max(scores))
    assert verdicts == [[False, False], [False, False], [False, True], [False, False]]


def test_a_study_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'search.db'}", "s", prune_after=2, seed=0, at_a_time=1)
    tried = {"optim.lr": "optim.lr=1,2"}
    demand_same(study, {"fixed": ["shot=1"], "tried": tried})
    demand_same(study, {"fixed": ["shot=1"], "tried": tried})
    with pytest.raises(
        UserError, match=r"in one of the two only: shot=1, shot=2. Type those of before, or hydra.sweeper.study"
    ):
        demand_same(study, {"fixed": ["shot=2"], "tried": tried})


@pytest.mark.parametrize(
    ("word", "low", "high", "log"),
    [
        ("optim.lr=tag(log,interval(1e-4,1e-2))", 1e-4, 1e-2, True),
        ("algo.inner_steps=range(1,6)", 1, 5, False),
        ("steps=int(interval(1,8))", 1, 8, False),
        ("augment.jitter=interval(0,0.5)", 0.0, 0.5, False),
    ],
)
def test_search_spaces_are_read_as_hydra_writes_them(word: str, low: float, high: float, log: bool) -> None:
    drawn = distribution(OverridesParser.create().parse_override(word))
    assert (drawn.low, drawn.high, drawn.log) == (low, high, log)
    assert isinstance(drawn.low, type(low))


def test_choices_are_searched_too() -> None:
    [comma, words] = OverridesParser.create().parse_overrides(["shot=1,5", "norm=choice(group,none)"])
    assert distribution(comma).choices == ("1", "5")
    assert distribution(words).choices == ("group", "none")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "hydra/launcher=joblb"], "hydra/launcher=joblb: there is no such hydra/launcher. Did you mean joblib?"),
        (["-m", "hydra/sweeper=optna"], "hydra/sweeper=optna: there is no such hydra/sweeper. Did you mean optuna?"),
        (["-m", "hydra/sweeper=optuna", "test=true"], "A search is for validation"),
        (["-m", "hydra/sweeper=optuna", "way=five"], "way=five: must be a whole number"),
        (["-m", "hydra/sweeper=optuna", "wya=5"], "'wya' is not a setting. Did you mean way?"),
        (["-m", "resume=outputs/RUN"], "a sweep goes on with resume=true"),
        (["resume=true"], "resume=true is for a sweep (-m)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_swept(tmp_path: Path, words: list[str], says: str) -> None:
    more = [] if words == ["resume=true"] else [*SMALL, f"out={tmp_path}"]
    with pytest.raises(UserError) as refused:
        run(["train", *words, *more])
    assert says in str(refused.value)
    assert not runs(tmp_path) and not list(tmp_path.glob("*.db")) and not list(tmp_path.glob(".sweeps/*"))


def test_an_algorithm_without_a_search_space(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text("# Mine\n_target_: fsl_cli.algorithms.protonet.ProtoNet\n")
    with pytest.raises(UserError, match="There is nothing to search: this algorithm has no search space"):
        run(["train", "-m", "--config-dir", str(tmp_path), "algo=mine", "hydra/sweeper=optuna", f"out={tmp_path}"])


HOSTILE = {
    "another package": {"trust": "[subprocess]", "++logger": "{x:{_target_:subprocess.call,args:[touch]}}"},
    "another folder": {"out": "elsewhere"},
    "a value that is not drawn": {"optim.lr": "{_target_:os.system}"},
    "a value outside its range": {"optim.lr": 7.0},
    "nothing": {},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_strangers_search_types_no_setting(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that goes on types the parameters of begun trials: only those that it draws itself."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    monkeypatch.chdir(tmp_path)
    words = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optim.lr=interval(0.001,0.1)"]
    Path("out").mkdir()
    study = open_study("sqlite:///out/search.db", "protonet-glyphs-5w1s", None, 0, 1)
    drawn = {
        "optim.lr": FloatDistribution(0.001, 0.1),
        "algo.temperature": FloatDistribution(1, 100, log=True),
        "train_way": CategoricalDistribution(("5", "10", "20", "30")),
    } | {key: CategoricalDistribution([value]) for key, value in HOSTILE[case].items()}
    if case == "nothing":
        drawn = {}
    study.ask(drawn)
    with pytest.raises(UserError, match=f"is not of this search .*{next(iter(HOSTILE[case]), 'optim.lr').strip('+')}"):
        run(["train", *words, *SMALL, "out=out"])
    assert not runs(tmp_path / "out") and not Path("elsewhere").exists()


@pytest.mark.parametrize("word", ["hydra/launcher=joblib", "hydra/sweeper=optuna"])
def test_a_plugin_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    plugins = dict.fromkeys(("joblib", "optuna"), ("hydra_plugins.no_such_thing", "sweep"))
    monkeypatch.setattr(fsl_cli.sweeps.plan, "PLUGINS", plugins)
    with pytest.raises(UserError, match=r'is not installed. Type pip install "fsl-cli\[sweep\]"'):
        run(["train", "-m", word, f"out={tmp_path}"])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_launchers_run_all_and_say_what_failed(tmp_path: Path, launcher: str) -> None:
    if launcher == "ray":  # its cloudpickle is too old for joblib: no part of [dev]
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    out = tmp_path / "out put"
    done = fsl(out, f"hydra/launcher={launcher}", "optim.lr=1e30,0.01")
    assert done.returncode == 2, done.stderr
    assert re.search(r"fsl: 1 of 2 runs failed\.\noptim\.lr=1e\+?30: Training diverged", done.stderr), done.stderr
    assert "ConfigStore" not in done.stderr
    assert [job.state for job in notes(out)] == ["failed", "finished"]
    assert sorted((path / "result.json").exists() for path in runs(out)) == [False, True]
    assert "2 of 2 runs" in done.stdout


@pytest.mark.slow
def test_a_killed_search_goes_on_and_reads_no_test(tmp_path: Path) -> None:
    import optuna

    out = tmp_path / "out"
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "steps=40"]
    begun = 0
    with subprocess.Popen(command(out, *words), env=environment(), stdout=subprocess.PIPE, text=True) as search:
        assert search.stdout
        for line in search.stdout:  # kill it after the second trial's first validation
            begun += line.startswith("Training in")
            if begun == 2 and line.startswith("step"):
                search.send_signal(signal.SIGKILL)
                break
    half = runs(out)[1]
    done = fsl(out, *words)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="protonet-glyphs-5w1s", storage=f"sqlite:///{out / 'search.db'}")
    assert all(trial.state.is_finished() for trial in study.trials)
    assert len(study.trials) == len(runs(out)) == 3
    assert study.trials[1].user_attrs["folder"] == str(half)
    assert len({trial.params["optim.lr"] for trial in study.trials}) == 3
    best = json.loads((Path(study.best_trial.user_attrs["folder"]) / "training.json").read_text())
    assert study.best_value == best["best_value"]
    assert not list(out.glob("*/*/result.json"))
    assert f"next   fsl test run={study.best_trial.user_attrs['folder']}" in done.stdout
