"""Trackers: what they are told is read back from their own files and stores; one that fails does not stop training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

import fsl_cli.settings.binding
from fsl_cli.cli import run
from fsl_cli.errors import UserError

SMALL = [
    "data.train_classes=30", "data.val_classes=10", "data.test_classes=10", "data.size=16", "train_query=2", "query=2",
    "backbone.filters=4", "steps=6", "val_every=3", "val_episodes=4", "episodes=5", "trainer=cpu", "algo.scale=7.5",
]  # fmt: skip
FILES = {
    "config.yaml", "overrides.txt", "environment.json", "training.json", "metrics.csv", "curves.png", "result.json",
    "episodes.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
}  # fmt: skip


def fsl(out: Path, *words: str) -> str:
    """A real command line, as trackers leave threads and processes behind; what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fsl_cli", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tells all trackers."""
    out = tmp_path_factory.mktemp("tracked")
    shown = fsl(out, *SMALL, f"out={out}", "logger=[tensorboard,mlflow,wandb,comet]")
    assert "fails" not in shown, shown
    (config,) = out.glob("*/*/config.yaml")
    return config.parent


def rows(folder: Path) -> list[dict[str, float]]:
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    return [dict(zip(header.split(","), map(float, line.split(",")), strict=True)) for line in lines]


@pytest.mark.slow
def test_tensorboards_files_hold_the_run(tracked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked / "tensorboard"))
    events.Reload()
    accuracy = [(event.step, event.value) for event in events.Scalars("val_accuracy")]
    assert accuracy == [(row["step"], pytest.approx(row["val_accuracy"])) for row in rows(tracked)]
    assert events.Scalars("test_accuracy")[0].value == pytest.approx(result(tracked)["mean"])
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert "scale: 7.5" in texts["config.yaml/text_summary"]
    assert json.loads((tracked / "environment.json").read_text())["torch"] in texts["environment.json/text_summary"]
    assert "curves.png" in events.Tags()["images"]
    assert "_hparams_/experiment" in events.summary_metadata


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflows_store_holds_the_run(tracked: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked.parents[1] / 'mlflow.db'}")
    number = json.loads((tracked / "tracking.json").read_text())["mlflow"]
    kept = client.get_run(number)
    assert kept.info.status == "FINISHED"
    assert {key: kept.data.params[key] for key in ("algo.scale", "choices.algo", "steps")} == {
        "algo.scale": "7.5", "choices.algo": "protonet", "steps": "6",
    }  # fmt: skip
    assert kept.data.params["environment.torch"] == version("torch")
    assert kept.data.metrics["test_accuracy"] == pytest.approx(result(tracked)["mean"])
    history = [(each.step, each.value) for each in client.get_metric_history(number, "val_accuracy")]
    assert history == [(row["step"], pytest.approx(row["val_accuracy"])) for row in rows(tracked)]
    kept_files = tracked.parents[1] / "mlflow" / number / "artifacts"
    names = {path.relative_to(kept_files).as_posix() for path in kept_files.rglob("*") if path.is_file()}
    assert names - {"changes.diff"} == FILES
    assert (kept_files / "checkpoints/best.ckpt").read_bytes() == (tracked / "checkpoints/best.ckpt").read_bytes()


@pytest.mark.slow
def test_comets_archive_holds_the_run(tracked: Path) -> None:
    (path,) = (tracked / "comet").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        messages = [json.loads(line)["payload"] for line in archive.read("messages.json").splitlines()]
        files = {m["additional_params"]["fileName"]: m["file_path"] for m in messages if "additional_params" in m}
        assert files.keys() - {"changes.diff"} == FILES
        assert archive.read(files["checkpoints/best.ckpt"]) == (tracked / "checkpoints/best.ckpt").read_bytes()
    metrics = [message["metric"] for message in messages if "metric" in message]
    accuracy = [(m["step"], float(m["metricValue"])) for m in metrics if m["metricName"] == "val_accuracy"]
    assert accuracy == [(row["step"], pytest.approx(row["val_accuracy"])) for row in rows(tracked)]
    settings = {m["param"]["paramName"]: m["param"]["paramValue"] for m in messages if "param" in m}
    assert (settings["algo.scale"], settings["choices.algo"]) == (7.5, "protonet")


@pytest.mark.slow
def test_wandbs_offline_run_holds_the_run(tracked: Path) -> None:
    (path,) = (tracked / "wandb" / "wandb").glob("offline-run-*/*.wandb")
    records = wandb_records(path)
    history = [{item.nested_key[0]: json.loads(item.value_json) for item in r.history.item} for r in records]
    accuracy = [(row["trainer/global_step"], row["val_accuracy"]) for row in history if "val_accuracy" in row]
    assert accuracy == [(row["step"], pytest.approx(row["val_accuracy"])) for row in rows(tracked)]
    settings = {item.key: json.loads(item.value_json) for record in records for item in record.config.update}
    assert (settings["algo.scale"], settings["choices.algo"]) == (7.5, "protonet")
    sent = {entry.path: entry for record in records for entry in record.artifact.manifest.contents}
    assert sent.keys() - {"changes.diff"} == FILES
    assert Path(sent["checkpoints/best.ckpt"].local_path).is_relative_to(tracked)


def wandb_records(path: Path) -> list:
    """The messages in a .wandb file: LevelDB's log format, in blocks of 32 KiB, after seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, records, parts, at = path.read_bytes(), [], b"", 7
    while at < len(content):
        left = 32768 - at % 32768
        if left < 7:  # no room for another header
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_goes_on_where_it_was(tracked: Path) -> None:
    from mlflow import MlflowClient

    before = (tracked / "tracking.json").read_text()
    for name in ("training.json", "result.json"):  # as if killed before the end
        (tracked / name).unlink()
    fsl(tracked, f"resume={tracked}")
    assert (tracked / "tracking.json").read_text() == before
    client = MlflowClient(f"sqlite:///{tracked.parents[1] / 'mlflow.db'}")
    assert len(client.search_runs(["1"])) == 1
    assert len(list((tracked / "wandb" / "wandb").glob(f"offline-run-*-{json.loads(before)['wandb']}"))) == 2


@pytest.mark.slow
def test_a_server_that_is_away_costs_its_tracking_and_nothing_else(tmp_path: Path) -> None:
    shown = fsl(tmp_path, *SMALL, f"out={tmp_path}", "logger=mlflow", "logger.mlflow.tracking_uri=http://127.0.0.1:9")
    assert "logger=mlflow fails and is left alone; training goes on" in shown
    assert "lost   what mlflow should have of this run, from the start" in shown.splitlines()[-1]
    assert list(tmp_path.glob("*/*/result.json"))


def test_a_tracker_that_fails_on_the_way_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: TensorBoardLogger, metrics: dict, step: int) -> None:
        seen.append(step)
        if step == 6:
            raise ConnectionError("the server is away")

    seen: list[int] = []
    monkeypatch.setattr(TensorBoardLogger, "log_metrics", broken)
    run(["train", *SMALL, f"out={tmp_path}", "logger=tensorboard"])
    assert seen == [3, 6]
    assert "lost   what tensorboard should have of this run, since step 6: ConnectionError: the server is away" in (
        capsys.readouterr().out
    )
    assert list(tmp_path.glob("*/*/result.json"))


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsl_cli.settings.binding, "PACKAGES", {"WandbLogger": "no_such_wandb"})
    for verb in ("train", "check"):
        with pytest.raises(
            UserError, match=r'logger=wandb: no_such_wandb is not installed. Type pip install "fsl-cli\['
        ):
            run([verb, f"out={tmp_path}", "logger=[tensorboard,wandb]"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("logger=tensorbord", "logger=tensorbord: there is no such logger. Did you mean tensorboard?"),
        ("logger=[mlflow,wanb]", "logger=wanb: there is no such logger. Did you mean wandb?"),
        ("+logger.mlflow.colour=red", "logger.mlflow.colour: MLFlowLogger has no such setting"),
    ],
)
def test_loggers_that_cannot_be(word: str, says: str) -> None:
    with pytest.raises(UserError) as refused:
        run(["check", *(["logger=mlflow"] if "colour" in word or "=3" in word else []), word])
    assert says in str(refused.value)
