"""fsl reproduce: rows that compose, runs that are theirs, verdicts, and pages that show what the files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.reproduce.recorded import recorded
from fsl_cli.reproduce.rows import Row, RowTest, rows
from fsl_cli.reproduce.running import demand_rows, reproduce, take_in
from fsl_cli.reproduce.state import differing, state
from fsl_cli.reproduce.table import BEGIN, END, PAGES, filled, lines, verdict
from fsl_cli.runs.published import reported
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import demand_fit
from fsl_cli.settings.changed import changed
from fsl_cli.settings.compose import compose
from fsl_cli.settings.schema import Settings, typed

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "algo=protonet data=glyphs way=5 shot=1 data.train_classes=30 data.val_classes=10 data.test_classes=10 "
    "train_way=5 train_query=2 query=2 backbone.filters=4 steps=2 val_every=2 val_episodes=2 episodes=5 calibrate=false"
)
PAPER = reported("ProtoNet", "omniglot", "5w1s")
ROW = Row("tiny", tuple(SMALL.split()), None, [RowTest("", "5w1s", PAPER), RowTest("shot=2", "5w2s", None)])


@pytest.mark.parametrize("row", rows().values(), ids=list(rows()))
def test_a_row_is_a_training_whose_settings_fit_and_its_tests_change_what_is_there(row: Row) -> None:
    settings = demand_fit(compose(row.words).values).plain()
    for test in row.tests:
        demand_fit(changed(settings, dict(word.split("=") for word in test.words.split())))
    assert row.init is None or row.init in list(rows())[: list(rows()).index(row.name)]  # trained before it


def test_the_pages_show_what_the_files_say() -> None:
    found = [(row, recorded(ROOT / "results", row)) for row in rows().values()]
    for name, with_open in PAGES.items():
        text = (ROOT / name).read_text()
        assert filled(text, found, with_open) == text, "python scripts/reproduced.py fills the pages"
        assert "<!-- reproduced:" in text


@pytest.mark.parametrize(("mean", "says"), [(98.95, "above"), (98.75, "reached"), (98.5, "short by 0.30")])
def test_a_verdict_is_by_the_interval(mean: float, says: str) -> None:
    assert PAPER.accuracy == "98.8"
    assert verdict(PAPER, {"mean": mean / 100, "interval": 0.001}) == says
    assert verdict(None, {"mean": mean / 100, "interval": 0.001}) == ""


def test_a_row_is_trained_and_tested_once_and_goes_on_from_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, results = tmp_path / "outputs", tmp_path / "results"
    assert state(ROW, out, results).words() == "open"
    first = reproduce(ROW, ["trainer=cpu"], out, results)
    assert first.run and first.is_done and first.words() == "done"
    assert [len(line) for line in lines(ROW, first.tests, "")] == [6, 6]
    own, other = json.loads((results / "tiny.json").read_text())
    assert (own["shot"], other["shot"], other["changes"], own["row"]) == (1, 2, ["shot=2"], "tiny")
    assert str(tmp_path) not in (results / "tiny.json").read_text()
    (results / "tiny.json").unlink()
    assert state(ROW, out, results).words() == "trained, not tested"
    assert reproduce(ROW, [], out, results).run.folder == first.run.folder  # type: ignore[union-attr]
    elsewhere = tmp_path / "elsewhere"
    take_in(ROW, first.run, elsewhere)
    assert state(ROW, elsewhere, results).run.folder == first.run.folder.resolve()  # type: ignore[union-attr]
    for key, value in (("steps", 7), ("seed", 3)):
        config = yaml.safe_load((first.run.folder / "config.yaml").read_text())
        (first.run.folder / "config.yaml").write_text(yaml.safe_dump({**config, key: value}))
        if key == "seed":
            (first.run.folder / "config.yaml").write_text(yaml.safe_dump({**config, key: value, "steps": 2}))
            take_in(ROW, Run(first.run.folder), elsewhere)
        else:
            with pytest.raises(UserError, match=r"no run of tiny(.|\n)*steps: 7, not 2"):
                take_in(ROW, Run(first.run.folder), elsewhere)


def test_a_row_in_bfloat16_goes_on_in_it_and_says_so(tmp_path: Path) -> None:
    out, results = tmp_path / "outputs", tmp_path / "results"
    words = ["trainer=cpu", "trainer.precision=bf16-mixed"]
    demand_rows([ROW], words, out, results)
    done = reproduce(ROW, words, out, results)
    assert "bf16-mixed" in lines(ROW, done.tests, "")[0][-1]
    with pytest.raises(UserError, match="trainer.precision=32-true: .*is tiny with trainer.precision=bf16-mixed"):
        demand_rows([ROW], ["trainer.precision=32-true"], out, results)
    demand_rows([ROW], words, out, results)


def test_a_row_that_is_done_is_not_trained_again_without_a_word_and_another_seed_goes_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fsl_cli.reproduce.rows.rows", lambda: {"tiny": ROW})
    Path("README.md").write_text(BEGIN + END)
    for place, mean in (("results", 0.75), ("other", 0.5)):
        about = {"mean": mean, "interval": 0.01, "training_seconds": 1.0, "query": 2, "inference": "inductive"}
        entries = [{"test": test.words, "when": "2026", "environment": {}, "seed": 0, **about} for test in ROW.tests]
        Path(place).mkdir()
        Path(place, "tiny.json").write_text(json.dumps(entries))
    run(["reproduce", "tiny"])
    said = capsys.readouterr().out
    assert "tiny was done already: results/tiny.json. To train it once more: fsl reproduce tiny out=FOLDER" in said
    assert (
        f"fsl train {' '.join(ROW.words)}" in said and "Snell et al. 2017" in said
    )  # its command, its paper's protocol
    assert "75.00" in (page := Path("README.md").read_text())
    run(["reproduce", "tiny", "results=other"])
    assert Path("README.md").read_text() == page  # which is of the checkout's own results
    for other, here in (("seed=1", "seed=0"), ("trainer.precision=bf16-mixed", "trainer.precision=32-true")):
        with pytest.raises(UserError, match=rf"{other}: results/tiny.json is tiny with {here}.*results=FOLDER"):
            run(["reproduce", "tiny", other])


def test_a_setting_that_a_run_is_too_old_for_is_what_its_class_takes_unasked() -> None:
    wanted = demand_fit(compose(ROW.words).values)

    def without(part: str, name: str) -> Settings:
        plain = wanted.plain()
        del plain[part][name]
        return typed(plain)

    assert differing(wanted, without("backbone", "norm_eps")) == {}
    assert differing(wanted, without("backbone", "filters")) == {"backbone.filters": (4, 64)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["maml-omniglot-5w"], "Did you mean maml-omniglot-5w1s"),
        (["data.root=x"], "Which row"),
        (["maml-omniglot-5w1s", "steps=5"], "steps.*another training"),
        (["maml-omniglot-5w1s", "protonet-miniimagenet-5w1s", "data.root=x"], "of which data set"),
        (["maml-omniglot-5w1s", "anil-omniglot-5w1s", "run=x"], "of which row"),
        (["maml-omniglot-5w1s", "results=taken"], "maml-omniglot-5w1s.json cannot be written"),
        (["rfs-miniimagenet"], "begins with the backbone of simpleshot-miniimagenet-5w1s"),
    ],
)
def test_what_does_not_go_is_said_before_any_work(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file, no folder")
    with pytest.raises(UserError, match=says):
        run(["reproduce", *words])
    assert not list(tmp_path.rglob("*.json"))


def test_the_list_shows_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["reproduce"])
    said = capsys.readouterr().out
    assert all(name in said for name in rows()) and "98.7 ± 0.4" in said


WHOLE = {"test": "", "mean": 0.5, "interval": 0.1, "training_seconds": 1.0, "query": 2, "inference": "inductive",
         "when": "2026", "environment": {}}  # fmt: skip
DAMAGED = [[1], [{"test": []}], [{"test": "", "mean": "1"}], [{**WHOLE, "precision": 3}]]


@pytest.mark.parametrize("content", ["{", "[" * 5000, *map(json.dumps, DAMAGED)])
def test_a_damaged_record_is_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "tiny.json").write_text(content)
    with pytest.raises(UserError, match="Remove it, and type fsl reproduce tiny"):
        recorded(tmp_path, ROW)


@pytest.mark.parametrize("content", ["[]", '{"run": 3}'])
def test_a_damaged_note_of_a_run_is_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / ".reproduce").mkdir()
    (tmp_path / ".reproduce" / "tiny.json").write_text(content)
    with pytest.raises(UserError, match="tiny.json"):
        state(ROW, tmp_path, tmp_path)
