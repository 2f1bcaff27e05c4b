"""fsl report: who may stand in one table, what is counted, and what is written."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import yaml
from conftest import RESULT, a_run, a_test

import fsl_cli.runs.published as published_module
from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.pictures.learning import Curve, Panel, draw
from fsl_cli.report.charts import by_axis, curve_panels, method_names
from fsl_cli.report.formats import Notes, table
from fsl_cli.report.gather import _settings, gather
from fsl_cli.report.matrix import matrix
from fsl_cli.report.rows import row_names, sections
from fsl_cli.runs.jobs import Dotted
from fsl_cli.runs.published import MARKS, _table, backbone_name, beside, published
from fsl_cli.runs.records import Result
from fsl_cli.settings.binding import demand_fit
from fsl_cli.settings.compose import compose
from fsl_cli.settings.registry import choices, conf_dir
from fsl_cli.settings.schema import Image
from fsl_cli.stats import seeds_interval

HIGH = {i: 0.9 + 0.02 * (i % 3) for i in range(30)}
LOW = {i: value - 0.005 - 0.001 * (i % 2) for i, value in HIGH.items()}  # far less than the spread of either


def test_a_mean_over_seeds_has_an_interval_of_the_episodes_and_one_of_the_seeds(tmp_path: Path) -> None:
    a_run(tmp_path / "a", HIGH, seed=0)
    a_run(tmp_path / "b", LOW, seed=1)
    [section] = sections(gather([tmp_path]).tests)
    [row] = section.rows
    averaged = [(HIGH[i] + LOW[i]) / 2 for i in range(30)]
    assert row.mean == pytest.approx(fmean(averaged))
    assert row.episodes_interval == pytest.approx(1.96 * stdev(averaged) / math.sqrt(30))
    # Student's t with one degree of freedom: 12.706 standard errors
    seeds = [fmean(HIGH.values()), fmean(LOW.values())]
    assert row.seeds_interval == pytest.approx(12.7062 * stdev(seeds) / math.sqrt(2), rel=1e-5)
    assert seeds_interval([1, 2, 3, 4, 5]) == pytest.approx(2.7764 * stdev([1, 2, 3, 4, 5]) / math.sqrt(5), rel=1e-4)


def test_the_best_is_marked_only_where_the_paired_interval_excludes_zero(tmp_path: Path) -> None:
    a_run(tmp_path / "a", HIGH)
    a_run(tmp_path / "b", LOW, algo="anil")
    [section] = sections(gather([tmp_path]).tests)
    assert [(row.name, row.best) for row in section.rows] == [("maml", True), ("anil", False)]
    first, second = section.rows
    assert first.mean - second.mean < first.episodes_interval  # the intervals overlap, the pairs tell them apart
    assert second.behind and second.behind.mean == pytest.approx(0.0055)
    a_run(tmp_path / "c", {i: HIGH[29 - i] + 0.001 * (i % 2) for i in range(30)}, algo="boil")
    [section] = sections(gather([tmp_path]).tests)
    assert not any(row.best for row in section.rows)


def test_trackers_make_no_other_method_and_their_copies_no_run(tmp_path: Path) -> None:
    a_run(tmp_path / "a", HIGH, seed=0)
    tracked = a_run(tmp_path / "b", LOW, seed=1)
    config = yaml.safe_load((tracked / "config.yaml").read_text())
    config["logger"] = {"mlflow": {"_target_": "pytorch_lightning.loggers.MLFlowLogger"}}
    (tracked / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copytree(tracked, tmp_path / "mlflow" / "1" / "artifacts")
    gathered = gather([tmp_path])
    assert gathered.repeats == [] and [len(row.tests) for row in sections(gathered.tests)[0].rows] == [2]


def test_of_errors_the_lowest_is_best(tmp_path: Path) -> None:
    a_run(tmp_path / "a", HIGH, metric="mse")
    a_run(tmp_path / "b", LOW, algo="anil", metric="mse")
    [section] = sections(gather([tmp_path]).tests)
    assert [(row.name, row.best) for row in section.rows] == [("anil", True), ("maml", False)]


@pytest.mark.parametrize(
    "changed",
    [
        {"inference": "transductive"}, {"rotations": "none"}, {"split": "lake"},
        {"split_hash": "c"}, {"images": "c"}, {"way": [5, 20]}, {"shot": 5}, {"query": "all"}, {"data": "glyphs"},
        {"query_balance": "dirichlet"},
        {"metric": "mse"}, {"episode_seed": 1}, {"trained_on": "glyphs"}, {"sampling": "within_alphabet"},
        {"image": {"channels": 1, "size": 84, "mean": [0.0], "std": [1.0]}},
    ],
    ids=str,
)  # fmt: skip
def test_runs_of_another_protocol_never_share_a_table(changed: dict[str, object], tmp_path: Path) -> None:
    a_run(tmp_path / "a", HIGH)
    a_run(tmp_path / "b", LOW, algo="anil", **changed)
    found = sections(gather([tmp_path]).tests)
    assert sorted([row.name for row in section.rows] for section in found) == [["anil"], ["maml"]]
    assert len({(section.title, section.protocol) for section in found}) == 2  # and are not called the same


def test_inductive_methods_of_any_norm_share_a_table_with_the_norm_beside_the_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path / "a", HIGH)
    a_run(tmp_path / "b", LOW, algo="anil", norm="support")
    a_run(tmp_path / "c", LOW, algo="boil", norm="transductive", inference="transductive")
    run(["report", str(tmp_path), "format=markdown"])
    out = capsys.readouterr().out
    assert "| method | norm | seeds |" in out and "| anil | support | 1 |" in out and "| maml | running | 1 |" in out
    assert "## omniglot 5-way 1-shot, inductive" in out and "## omniglot 5-way 1-shot, transductive" in out
    assert "transductive, norm=transductive" in out


def test_tests_of_more_and_fewer_episodes_share_a_table_each_with_all_of_its_own(tmp_path: Path) -> None:
    a_run(tmp_path / "a", HIGH)
    few = {i: LOW[i] for i in range(20)}
    a_run(tmp_path / "b", few, algo="anil")
    [section] = sections(gather([tmp_path]).tests)
    first, second = section.rows
    assert first.mean == pytest.approx(fmean(HIGH.values())) and second.mean == pytest.approx(fmean(few.values()))
    assert second.behind and second.behind.episodes == 20 and section.episodes == list(range(20))
    assert table(section, Notes())[0] == ["method", "episodes", "seeds", "accuracy (%)", "±", "published"]


def test_how_far_probabilities_can_be_believed_stands_beside_them(tmp_path: Path) -> None:
    """After the temperature where there is one; an open test counts before a newer closed one of the same episodes."""
    told = {"ece": 0.2, "ece_calibrated": 0.0123, "loss": 3.5, "loss_calibrated": 0.25}
    folder = a_run(tmp_path / "a", HIGH, **told, open={"auroc": 0.875})
    a_test(folder / "tests" / "closed", HIGH, algorithm="maml", changes=[], **told)
    a_run(tmp_path / "b", LOW, algo="anil", loss=1.5, ece=0.5)
    [section] = sections(gather([tmp_path]).tests)
    header, first, second = table(section, Notes())
    own = header.index("ECE (%)")
    assert header[own : own + 3] == ["ECE (%)", "NLL", "AUROC (%)"]
    assert (first[own : own + 3], second[own : own + 3]) == (["1.23", "0.250", "87.50"], ["50.00", "1.500", ""])


def test_of_two_tests_of_one_run_that_of_more_episodes_counts(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a", HIGH)
    a_test(folder / "tests" / "fewer", {i: HIGH[i] for i in range(20)}, algorithm="maml", changes=["episodes=20"])
    found = gather([tmp_path])
    assert [test.outcome.folder for test in found.tests] == [folder]
    assert found.repeats == [folder / "tests" / "fewer"]


def papers(top: Path) -> None:
    """Two methods of two seeds on two data sets, one with two shots; one method is missing in one place."""
    for data in ("glyphs", "omniglot"):
        for shot in (1, 5):
            for algo, by in (("maml", 0.05), ("anil", 0.0)):
                if (data, shot, algo) == ("glyphs", 5, "anil"):
                    continue
                for seed in (0, 1):
                    values = {i: v - 0.1 + by + 0.0001 * seed + 0.001 * (i % 3) * seed for i, v in HIGH.items()}
                    name = f"{data}-{shot}-{algo}-{seed}"
                    norm = "running" if algo == "maml" else "support"
                    a_run(top / name, values, algo, seed, data=data, trained_on=data, shot=shot, norm=norm)


def test_one_table_has_a_row_for_each_method_and_a_column_for_each_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # room for every name
    papers(tmp_path / "runs")
    words = ["report", str(tmp_path / "runs"), "rows=algo", "columns=data,way,shot"]
    run([*words, "format=markdown"])
    first, _, maml, anil, *_ = capsys.readouterr().out.splitlines()
    columns = ["glyphs 5-way 1-shot", "glyphs 5-way 5-shot", "omniglot 5-way 1-shot", "omniglot 5-way 5-shot"]
    assert first == f"| method | norm | {' | '.join(columns)} |"
    assert maml.startswith("| maml | running | **87.0") and maml.count("**") == 2 * 3  # one column has no other
    assert anil.startswith("| anil | support | 82.0") and anil.count("|") == 7 and "|  |" in anil
    run([*words, "format=latex"])
    out = capsys.readouterr().out
    assert out.count("\\begin{table}") == 1
    assert r" &  & \multicolumn{2}{c}{glyphs} & \multicolumn{2}{c}{omniglot} \\" in out
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-6}" in out and r"\textbf{87.0" in out and r" $\pm$ " in out
    run([*words, "format=csv"])
    one, _ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(one["omniglot 5-way 5-shot"]) == pytest.approx(0.87, abs=0.01)
    assert one["omniglot 5-way 5-shot seeds"] == "2"
    run(words)
    out = capsys.readouterr().out
    assert "omniglot 5-way 5-shot" in out and "Accuracy (%) with half its 95% interval; 2 seeds, 30 episodes" in out


def test_what_rows_and_columns_do_not_tell_apart_stays_apart(tmp_path: Path) -> None:
    a_run(tmp_path / "a", HIGH)
    a_run(tmp_path / "b", LOW, **{"algo.inner_lr": 0.1})
    a_run(tmp_path / "c", LOW, inference="transductive", norm="transductive")
    a_run(tmp_path / "d", HIGH, shot=5)
    found = matrix(sections(gather([tmp_path]).tests), ["algo"], ["data", "way"])
    assert [" ".join(head) for head in found.heads] == [
        "omniglot 5-way 1-shot inductive", "omniglot 5-way 1-shot transductive", "omniglot 5-way 5-shot inductive"
    ]  # fmt: skip
    assert {line.name: [bool(cell) for cell in line.cells] for line in found.lines} == {
        "maml algo.inner_lr=0.4": [True, True, True], "maml algo.inner_lr=0.1": [True, False, False],
    }  # fmt: skip
    a_run(tmp_path / "e", LOW, data="sinusoid", metric="mse", way=1, norm="none")
    of_all = matrix(sections(gather([tmp_path]).tests), ["algo"], ["data", "way", "shot"])
    assert of_all.heads[-1] == ("sinusoid", "1-shot")  # a curve has no classes
    assert "running, transductive, none" in [line.norms for line in of_all.lines]
    with pytest.raises(UserError, match="columns=wya: .* Did you mean way"):
        matrix(found.sections, ["algo"], ["wya"])
    with pytest.raises(UserError, match="rows=algorithm"):
        matrix(found.sections, ["algorithm"], ["data"])


def test_learning_curves_of_all_methods_are_one_picture(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        a_run(tmp_path / f"a{seed}", HIGH, seed=seed)
        a_run(tmp_path / f"b{seed}", LOW, algo="anil", seed=seed, norm="support")
    [panel] = curve_panels(gather([tmp_path]).tests)
    assert sorted(curve.name for curve in panel.curves) == ["anil", "anil", "maml", "maml"]
    assert panel.curves[0].points == [(50, 60), (100, 70)]
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        run(["report", str(tmp_path), f"to={tmp_path / 'curves'}.{ending}"])
        assert (tmp_path / f"curves.{ending}").read_bytes().startswith(start)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["$$", "猫" * 40, "W" * 200], ids=ascii)
def test_names_of_many_methods_do_not_overlap(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    curves = [Curve(f"{name}{i}", [(0.0, i), (1.0, i + 1)]) for i in range(15)]
    draw([Panel("one", "accuracy (%)", curves), Panel("two", "accuracy (%)", curves[:3])], tmp_path / "a.png", "png")
    [figure] = figures
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.legends[0].get_texts()]
    assert all(not a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)


def test_names_that_are_hostile_to_a_format_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for algo, mode in (("maml", "=1+1|<b>**x**\u202e"), ("maml", "plain")):
        a_run(tmp_path / mode[:1], HIGH if mode == "plain" else LOW, algo, **{"algo.mode": mode})
    found = {}
    for form in ("markdown", "latex", "csv", "table"):
        run(["report", str(tmp_path), f"format={form}"])
        found[form] = capsys.readouterr().out
    assert all("\u202e" not in text for text in found.values())
    assert r"=1+1\|&lt;b&gt;\*\*x\*\*&lt;U+202E&gt;" in found["markdown"]
    assert r"\textbar{}\textless{}b\textgreater{}" in found["latex"] and "<U+202E>" in found["table"]


def test_tests_of_a_run_count_once_and_changed_ones_on_their_own(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", HIGH)
    a_test(a / "tests" / "again", HIGH, algorithm="maml")
    a_test(a / "tests" / "steps", LOW, algorithm="maml", changes=["algo.test_steps=10", "episodes=30"])
    a_test(a / "tests" / "five", HIGH, algorithm="maml", shot=5, changes=["shot=5"])
    (tmp_path / "unfinished").mkdir()
    for name in ("config.yaml", "overrides.txt"):
        shutil.copy(a / name, tmp_path / "unfinished")
    found = gather([tmp_path, a])
    assert (found.untested, found.repeats) == ([tmp_path / "unfinished"], [a])
    one, five = sections(found.tests)
    assert [row.name for row in one.rows] == ["maml", "maml test.algo.test_steps=10"]
    assert [row.name for row in five.rows] == ["maml"]


def test_a_row_is_called_by_what_tells_it_from_others_of_its_algorithm() -> None:
    base = Dotted({"algo": "maml", "data": "", "steps": 100, "schedule.steps": 100, "optim.lr": 0.1})
    longer = Dotted({**base, "steps": 200, "schedule.steps": 200})
    assert row_names([base, longer, Dotted({"algo": "anil", "data": "", "steps": 7})]) == [
        "maml steps=100",
        "maml steps=200",
        "anil",
    ]
    half = Dotted({**base, "algo": "anil", "test.unfinished": "true"})
    assert row_names([base, half]) == ["maml", "anil (unfinished)"]
    assert row_names([base, Dotted({**base, "init": None})]) == ["maml", "maml init=null"]
    small, large = (Dotted({"algo": "maml", "data": name, f"data.{name}": 1}) for name in ("glyphs", "omniglot"))
    assert row_names([small, large]) == ["maml data=glyphs", "maml data=omniglot"]
    assert row_names([small, Dotted({**large, "steps": 9})]) == ["maml data=glyphs", "maml data=omniglot"]


def test_accuracy_by_shot_is_of_the_same_run_or_of_runs_trained_for_each_shot(tmp_path: Path) -> None:
    for shot, values in ((1, LOW), (5, HIGH)):
        one = a_run(tmp_path / f"maml-{shot}", values, shot=shot, **{"algo.inner_lr": shot})
        (one / "overrides.txt").write_text(f"algo=maml\nshot={shot}\nsteps=100\n")
    a_test(one / "tests" / "one", LOW, algorithm="maml", shot=1, changes=["shot=1"])
    a_run(tmp_path / "other", HIGH, query=1)  # another protocol, and but one shot
    tests = gather([tmp_path]).tests
    [chart] = by_axis(sections(tests), "shot", method_names(tests))
    one_run, each = sorted(chart.series, key=lambda series: series.dashed)
    assert [point[0] for point in one_run.points] == [point[0] for point in each.points] == [1, 5]
    assert one_run.name == "maml algo.inner_lr=5" and each.name == "maml steps=100 (trained for each)"
    assert each.points[1][1] == pytest.approx(100 * fmean(HIGH.values()))
    assert by_axis(sections(tests), "way", method_names(tests)) == []


def test_published_numbers_have_a_source_and_a_mark_that_says_how_we_know() -> None:
    for entry in _table()["rows"]:
        assert entry["source"] and entry["mark"] in MARKS and entry.get("algo") in {None, *choices("algo")}
        assert entry.get("inference") in (None, "inductive", "transductive")
        assert entry["data"] in choices("data")
        for task, accuracy in entry["accuracy"].items():
            assert task in ("5w1s", "5w5s", "20w1s", "20w5s")
            assert all(0 < float(part) < 100 for part in str(accuracy).split(" ± ")), accuracy


def test_what_a_recipe_says_a_paper_reports_is_what_the_table_has() -> None:
    """So that no number from memory stands in a recipe: each of a method and data set of the table is of the table."""
    checked = 0
    for path in sorted((conf_dir() / "recipe").glob("*.yaml")):
        algo, _, data = path.stem.partition("_")
        entries = [entry for entry in _table()["rows"] if (entry.get("algo"), entry["data"]) == (algo, data)]
        told = re.findall(r"reports? ([\d. /±]+)% \(((?:\d+w\d+s ?)+)", path.read_text().replace("\n# ", " "))
        for numbers, tasks in told if entries else []:
            for number, task in zip(numbers.split(" / "), tasks.split(), strict=True):
                known = {str(entry["accuracy"].get(task)).partition(" ±")[0] for entry in entries}
                assert number.partition(" ±")[0] in known, f"{path.name}: {task} {number}, in the table {known}"
                checked += 1
    assert checked > 50


def test_published_numbers_keep_their_last_zero() -> None:
    written = yaml.load(Path(published_module.__file__).with_name("published.yaml").read_text(), yaml.BaseLoader)
    for raw, entry in zip(written["rows"], _table()["rows"], strict=True):
        assert raw["accuracy"] == {task: str(value) for task, value in entry["accuracy"].items()}  # 43.40 in quotes


@cache
def as_reported(*words: str) -> tuple[Result, dict[str, Any]]:
    """The result and the settings of a run of these words, without running it."""
    composed = compose(words)
    made = demand_fit(composed.values).having(choices=composed.choices)
    data = made.choices["data"]
    found = {
        **RESULT, "algorithm": made.choices["algo"], "mean": 0.5, "episodes": 1000, "data": data, "trained_on": data,
        "way": made.way, "shot": made.shot, "query": made.query,
        "split": "vinyals" if data == "omniglot" else "its own",
        "rotations": made.data.get("rotations"), "image": Image(3, made.data.get("size"), [0.0], [1.0]),
        "inference": "transductive" if made.norm == "transductive" else "inductive",
    }  # fmt: skip
    return Result(**found), _settings(made, [])


RUNS = [  # words -> accuracy beside it, and what was otherwise there
    (
        "algo=maml data=omniglot",
        "98.7 ± 0.4",
        "split random 1100 / 100 / 423 (here vinyals), rotations one a class (here",
    ),
    ("algo=maml data=omniglot norm=support", "98.7 ± 0.4", "inference transductive (here inductive), split random"),
    ("algo=protonet data=omniglot way=20", "96.0", "train_on=trainval"),
    ("algo=protonet data=omniglot way=20 train_on=trainval", "96.0", None),
    ("algo=maml data=omniglot query=15", "98.7 ± 0.4", "query 1 (here 15)"),
    ("algo=maml data=omniglot shot=5", "99.9 ± 0.1", "rotations one a class (here all)"),
    ("algo=reptile data=omniglot", "95.39", "algo.with_query=true"),
    ("algo=maml data=omniglot data.size=84", "98.7 ± 0.4", "size 28 (here 84)"),
    ("algo=reptile data=miniimagenet algo.with_query=true", "47.07", None),
    ("algo=reptile data=miniimagenet norm=transductive query=1", "49.97", None),
    ("algo=taml data=omniglot", "99.23 ± 0.35", "inference and network and split and rotations not known"),
    ("algo=metalstm data=miniimagenet", "43.44 ± 0.77", "inference not known"),
    ("algo=protonet data=omniglot data.rotations=train", "98.8", "rotations all (here train)"),
    ("algo=reptile data=omniglot", "95.39", "split random 1200 / 423 (here vinyals), rotations train (here all)"),
    ("algo=reptile data=omniglot norm=transductive", "97.68", "split random 1200"),
    ("algo=relation data=omniglot", "99.6 ± 0.2", "inference transductive (here inductive), split random"),
    ("algo=mamlpp data=omniglot", "99.47", "split shuffled by a seed"),
    ("algo=metasgd data=omniglot", "99.53 ± 0.26", "not known"),
    ("algo=maml data=miniimagenet", "48.70 ± 1.84", None),
    ("algo=maml data=miniimagenet norm=support", "48.70 ± 1.84", "inference transductive (here inductive)"),
    ("algo=maml data=miniimagenet backbone.filters=64", None, None),
    ("algo=maml data=miniimagenet backbone=resnet12", None, None),
    ("algo=cavia data=miniimagenet", "47.24", None),
    ("algo=cavia data=miniimagenet backbone.filters=512", "51.82", None),
    ("algo=cavia data=miniimagenet backbone.filters=64", None, None),
    ("algo=boil data=miniimagenet", "49.61 ± 0.16", None),
    ("algo=mamlpp data=miniimagenet", "52.15 ± 0.26", None),
    ("algo=relation data=miniimagenet norm=transductive", "50.44 ± 0.82", None),
    ("algo=matching data=miniimagenet algo.context=true", "43.56", "inference not known"),
    ("algo=protonet data=miniimagenet", "49.42 ± 0.78", None),
    ("algo=protonet data=miniimagenet train_way=5", "46.61 ± 0.78", None),
    ("algo=protonet data=miniimagenet data.rotations=all", None, None),
    ("algo=simpleshot data=miniimagenet", "49.69 ± 0.19", None),
    ("algo=simpleshot data=miniimagenet backbone.halve=stride", None, None),
    ("algo=baseline data=miniimagenet", "42.11", None),
    ("algo=r2d2 data=miniimagenet", "51.2 ± 0.6", None),
    ("algo=r2d2 data=miniimagenet backbone.filters=[64,64,64,64]", "49.5", None),
    ("algo=r2d2 data=miniimagenet backbone=conv4", None, None),
    ("algo=metaoptnet data=miniimagenet", "52.87", None),
    ("algo=metaoptnet data=miniimagenet backbone=resnet12", "62.64", None),
    ("algo=metaoptnet data=miniimagenet backbone=resnet12 algo.head=ridge", "61.41", None),
    ("algo=metaoptnet data=miniimagenet backbone=resnet12 backbone.drop_rate=0", None, None),
    ("algo=rfs data=miniimagenet backbone=resnet12 backbone.average=true", "62.02", None),
    ("algo=rfs data=miniimagenet backbone=resnet12", None, None),
    ("algo=rfs data=miniimagenet backbone=resnet12 backbone.average=true teacher=r/r", "64.82", None),
    ("algo=feat data=miniimagenet backbone=resnet12 backbone.average=true", "66.78", None),
    ("algo=metabaseline data=miniimagenet backbone=resnet12 backbone.average=true", None, None),
    ("algo=siamese data=omniglot", None, None),
    ("algo=snail data=omniglot", "99.07 ± 0.16", "not known"),
    ("algo=matching data=omniglot", "98.1", "split and rotations not known"),
    ("algo=matching data=miniimagenet", "43.40", "inference not known"),
    ("algo=fomaml data=omniglot", "98.3", "split and rotations not known"),
    ("algo=fomaml data=miniimagenet", "48.07 ± 1.75", None),
    ("algo=anil data=omniglot way=20", "96.2 ± 0.5", "not known"),
    ("algo=anil data=miniimagenet", "46.7 ± 0.4", "inference not known"),
    ("algo=metasgd data=miniimagenet", "50.47 ± 1.87", "inference not known"),
    ("algo=reptile data=miniimagenet", "47.07", "algo.with_query=true"),
    ("algo=reptile data=miniimagenet norm=transductive", "49.97", "query 1 (here 15)"),
    ("algo=cavia data=miniimagenet backbone.filters=128", "49.84", None),
    ("algo=baselinepp data=miniimagenet", "48.24", None),
    ("algo=metaoptnet data=miniimagenet algo.head=ridge", "53.23", None),
    ("algo=metanet data=omniglot", "98.9", "not known"),
    ("algo=metanet data=miniimagenet", "49.21 ± 0.96", "not known"),
    ("algo=protonet data=cub", "51.31 ± 0.91", None),
    ("algo=baselinepp data=cub", "60.53 ± 0.83", None),
    ("algo=protonet data=tieredimagenet", "53.31 ± 0.89", None),
    ("algo=metaoptnet data=tieredimagenet", "54.71 ± 0.67", None),
    ("algo=metaoptnet data=tieredimagenet algo.head=ridge", "54.63 ± 0.67", None),
    ("algo=metaoptnet data=tieredimagenet backbone=resnet12", "65.99 ± 0.72", None),
    ("algo=metaoptnet data=tieredimagenet backbone=resnet12 algo.head=ridge", "65.36 ± 0.71", None),
    ("algo=rfs data=tieredimagenet backbone=resnet12 backbone.average=true", "69.74 ± 0.72", None),
    ("algo=rfs data=tieredimagenet backbone=resnet12 backbone.average=true teacher=r/r", "71.52 ± 0.69", None),
    ("algo=maml data=cifar_fs backbone.filters=32", "58.9 ± 1.9", "inference not known"),
    ("algo=protonet data=cifar_fs", "55.5 ± 0.7", None),
    ("algo=r2d2 data=cifar_fs", "65.3 ± 0.2", None),
    ("algo=r2d2 data=cifar_fs backbone.filters=[64,64,64,64]", "60.0", None),
    ("algo=protonet data=fc100", "35.3 ± 0.6", None),
    *(
        (f"algo={algo} data={data} backbone=resnet12 backbone.drop_size=2 {words}", accuracy, None)
        for data, numbers in {
            "cifar_fs": ("72.2 ± 0.7", "72.0 ± 0.7", "72.6 ± 0.7", "71.5 ± 0.8", "73.9 ± 0.8"),
            "fc100": ("37.5 ± 0.6", "41.1 ± 0.6", "40.5 ± 0.6", "42.6 ± 0.7", "44.6 ± 0.7"),
        }.items()
        for accuracy, (algo, words) in zip(
            numbers,
            [
                ("protonet", ""),
                ("metaoptnet", ""),
                ("metaoptnet", "algo.head=ridge"),
                ("rfs", "backbone.average=true"),
                ("rfs", "backbone.average=true teacher=r/r"),
            ],
            strict=True,
        )
    ),
    ("algo=metaoptnet data=cifar_fs backbone=resnet12", None, None),  # DropBlock of 5, as for images of 84
]
META_BASELINE = (
    "algo=metabaseline data=miniimagenet backbone=resnet12 backbone.filters=[64,128,256,512] backbone.average=true "
    "backbone.drop_rate=0 data.size=80"
)


@pytest.mark.parametrize(("words", "accuracy", "differs"), [*RUNS, (META_BASELINE, "63.17", None)])
def test_the_published_number_is_of_the_same_method_task_and_network(
    words: str, accuracy: str | None, differs: str | None
) -> None:
    found = beside(*as_reported(*words.split()))
    assert (found and found.accuracy) == accuracy
    if found:
        assert (differs in str(found.differs)) if differs else found.differs is None, found.differs


def test_every_number_of_an_algorithm_of_ours_stands_beside_some_run() -> None:
    """So that no row of the table is out of reach, as all of ResNet-12's once were."""
    reached = set()
    for words, *_ in [*RUNS, (META_BASELINE,)]:
        result, settings = as_reported(*words.split())
        if found := beside(result, settings):
            reached.add((found.method, result.data, found.backbone))
    ours = [entry for entry in _table()["rows"] if entry.get("algo") and entry["method"] != "Siamese networks"]
    rows = {(entry["method"], entry["data"], entry.get("backbone")) for entry in ours}
    assert rows == reached


@pytest.mark.parametrize(
    "changed",
    [
        {"trained_on": "glyphs"},
        {"way": 7},
        {"sampling": "within_alphabet", "split": "lake", "way": 20},
        {"split": "lake"},
        {"split": "small1"},
        {"query_balance": "dirichlet"},
        {"unlabelled": 5},
    ],
)
def test_nothing_is_published_for_another_task(changed: dict[str, Any]) -> None:
    result, settings = as_reported("algo=protonet", "data=omniglot", "way=20")
    assert published(result) and not published(replace(result, **changed))
    assert beside(replace(result, **changed), settings) is None


@pytest.mark.parametrize(
    "changed", [{"hidden_labels": "training (umtra)"}, {"labelled_share": 0.1}, {"memorisation": {"gap": 0.1}}]
)
def test_no_number_stands_beside_a_run_that_was_trained_on_other_labels(changed: dict[str, Any]) -> None:
    result, settings = as_reported("algo=maml", "data=omniglot")
    assert beside(result, settings) and not beside(replace(result, **changed), settings)


@pytest.mark.parametrize("split", ["folders", "csv", "own", "seeded-0"])
def test_nothing_is_published_for_the_users_own_collection_of_a_known_name(split: str) -> None:
    result, _ = as_reported("algo=protonet", "data=miniimagenet")
    assert published(result) and not published(replace(result, split=split))


def test_a_run_of_a_time_without_a_setting_is_the_network_that_it_was() -> None:
    conv4 = Dotted({"backbone": "conv4", "backbone.filters": 64})
    assert backbone_name(conv4) == "Conv4-64"
    assert backbone_name(Dotted({**conv4, "backbone.slope": 0.2})) == "Conv4-64 slope=0.2"
    assert backbone_name(Dotted({"backbone": "conv4", "backbone.filters": [8, 4, 4, 4]})) == "Conv4-8-4"
    assert backbone_name(Dotted({"backbone": "timm", "backbone.name": "vit"})) == "vit"


def test_two_networks_have_two_names() -> None:
    """Whatever a backbone's YAML offers that changes what it computes shows in its name."""
    words = {
        "resnet18": ["stem=3x3", "average=false", "blocks=[1,1,1,1]"],
        "wrn28_10": ["average=false", "depth=16", "widen=4"],
        "resnet12": ["average=true", "drop_rate=0", "drop_size=2"],
        "conv4": ["halve=stride", "maximum=true", "slope=0.01", "unpadded=2", "filters=32"],
    }
    for backbone, others in words.items():
        each = [[], *([f"backbone.{word}"] for word in others)]
        found = [backbone_name(as_reported("data=miniimagenet", f"backbone={backbone}", *more)[1]) for more in each]
        assert len(set(found)) == len(found), found


def test_tables_are_written_in_each_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    a_run(runs / "a", HIGH)
    a_run(runs / "b", LOW, algo="anil", **{"algo.inner_lr": 0.1})
    run(["report", str(runs)])
    shown = capsys.readouterr().out
    assert "omniglot 5-way 1-shot" in shown and "98.7 ± 0.4 [1]" in shown
    assert "[1] MAML: Finn et al. 2017 (read in the paper), transductive" in " ".join(shown.split())
    run(["report", str(runs), "format=markdown"])
    assert "| maml | 1 | **92.00** | 0.59 | 98.7 ± 0.4 [1] |" in capsys.readouterr().out
    differs = "inference transductive (here inductive), split random 1100 / 100 / 423 (here vinyals)"
    for ending, line in (
        ("tex", r"maml & 1 & \textbf{92.00} & 0.59 & 98.7 $\pm$ 0.4 [1] \\"),
        ("md", "| anil | 1 | 91.45 |"),
        ("txt", "anil"),
        ("html", f"; not as here: {differs}"),
    ):
        run(["report", str(runs), f"to={tmp_path / 'table'}.{ending}"])
        assert line in (tmp_path / f"table.{ending}").read_text()
    capsys.readouterr()
    run(["report", str(runs), "format=csv"])
    best, other = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (best["method"], best["best"], best["published_percent"]) == ("maml", "True", "98.7 ± 0.4")
    assert best["published_differs"].startswith(differs)
    assert (best["split_hash"], best["image_size"], best["backbone"]) == ("b", "28", "Conv4-64, stride 2")
    assert float(other["mean"]) == pytest.approx(fmean(LOW.values()))
    assert float(other["behind_the_first"]) == pytest.approx(0.0055)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Which runs"),
        (["nowhere"], "there is no such folder"),
        (["empty"], "empty holds no run"),
        (["untested"], "untested was tested: untested. Type fsl test run=untested"),
        (["run", "empty"], "empty holds no run"),
        (["run", "format=html5"], "type table, markdown"),
        (["run", "formt=csv"], "Did you mean format"),
        (["run", "--json"], "not '--json'"),
        (["run", "html=yes"], "neither true nor false"),
        (["run", "to=table.doc"], "which format"),
        (["run", "to=nowhere/table.md"], "cannot be written"),
        (["broken"], "result.json cannot be read"),
    ],
)
def test_bad_input_is_one_message(words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a_run(Path("run"), HIGH)
    for name in ("empty", "untested", "broken"):
        Path(name).mkdir()
    for name in ("config.yaml", "overrides.txt"):
        shutil.copy(Path("run") / name, "untested")
    Path("broken/result.json").write_text("{")
    with pytest.raises(UserError) as refused:
        run(["report", *words])
    assert says in str(refused.value)


def test_all_damaged_tests_are_told_at_once(tmp_path: Path) -> None:
    for number in range(7):
        folder = a_run(tmp_path / str(number), HIGH)
        old = json.loads((folder / "result.json").read_text()) | {"version": "0.0.1"}
        del old["image"]
        (folder / "result.json").write_text(json.dumps(old))
    with pytest.raises(UserError) as refused:
        gather([tmp_path])
    assert str(refused.value).count("by 0.0.1: it lacks image") == 5 and "and 2 more" in str(refused.value)
