"""The page of fsl report: self-contained, and alive in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import a_run, a_test

import fsl_cli.runs.published as published_module
from fsl_cli.cli import run
from fsl_cli.data.sources.glyphs import glyphs

SMALL = {"train_classes": 5, "val_classes": 5, "test_classes": 8, "drawings": 4, "size": 12}
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
CLICK = """<script>
const own = [...document.querySelectorAll("table.sortable")].find(table => table.querySelector("td[title]"));
const heads = [...own.tHead.querySelectorAll("button")];
heads.find(head => head.textContent.startsWith("accuracy")).click();
</script>"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods of two seeds on a few glyphs, tested with one and two shots; one name that is hostile to HTML."""
    data = glyphs(**SMALL)
    same = {"data": "glyphs", "trained_on": "glyphs", "images": data.hash, "query": 2, **data.protocol}
    for algo, by in (("maml", 0.0), ("protonet", 0.02)):
        for seed in (0, 1):
            values = {i: 0.5 + by + 0.01 * (i % 5) + 0.001 * seed for i in range(20)}
            folder = a_run(
                tmp_path / "runs" / f"{algo}-{seed}", values, algo, seed, **{"algo.inner_lr": 0.1 + by}, **same
            )
            more = {i: value + 0.2 for i, value in values.items()}
            a_test(folder / "tests" / "two", more, algorithm=algo, seed=seed, shot=2, changes=["shot=2"], **same)
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["data"] = {"_target_": "fsl_cli.data.sources.glyphs.glyphs", **SMALL}
            config["choices"]["data"] = "glyphs"
            config["algo"]["mode"] = f"</script><b>{algo}"
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "runs"


def made(runs: Path, capsys: pytest.CaptureFixture[str]) -> str:
    run(["report", str(runs), f"to={runs / 'page.html'}"])
    assert "page.html" in capsys.readouterr().err
    return (runs / "page.html").read_text()


def test_the_page_needs_nothing_else_and_shows_all(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = made(runs, capsys)
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\(|@import|fetch\(""", text)
    assert "<b>maml" not in text and text.count("</script>") == text.count("<script")
    assert text.count("hardest: episode") == 2 * 2 * 2  # caption and alternative text, two episodes, two protocols
    charts = [json.loads(chart) for chart in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    assert [chart["y"] for chart in charts] == ["validation accuracy (%)", "training loss", "test accuracy (%)"]
    assert len(charts[0]["series"]) == 4 and charts[0]["series"][0]["points"] == [[50, 60, 1], [100, 70, 1]]
    assert all([point[0] for point in series["points"]] == [1, 2] for series in charts[2]["series"])
    assert "algo.inner_lr" in text


def test_without_the_images_the_page_says_so_and_goes_on(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in runs.rglob("result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"images": "elsewhere"}))
    text = made(runs, capsys)
    assert "not on this machine. Type fsl data prepare glyphs" in text and "hardest: episode" not in text


def test_classes_that_recur_are_shown_the_hardest_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "By class" not in made(runs, capsys)
    for folder in (path.parent for path in runs.glob("*/result.json")):
        result = json.loads((folder / "result.json").read_text())
        found = {"classes": 2, "macro_accuracy": 0.75, "macro_f1": 0.7}
        (folder / "result.json").write_text(json.dumps(result | {"by_class": found}))
        (folder / "classes.csv").write_text(
            "class,queries,right,accuracy,taken_for_it,f1\nash<i>,10,9,0.9,1,0.9\noak,10,6,0.6,1,0.6\n"
        )
        (folder / "confusion.png").write_bytes(b"\x89PNG")
    text = made(runs, capsys)
    assert text.count("By class (2)") == 1 and text.index("<td>oak</td>") < text.index("<td>ash&lt;i&gt;</td>")
    assert text.count("<td>60.00</td>") == 2 and text.count("<td>70.00</td>") == 2
    assert "Confusion matrix" in text


def test_instances_stand_beside_the_papers_and_are_no_shots(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = [{"method": "MANN", "source": "S. 2016", "data": "glyphs", "way": 5, "accuracy": {2: 82.8, 5: 94.9}}]
    monkeypatch.setitem(published_module._table(), "instances", table)
    assert "By instance" not in made(runs, capsys)
    for path in runs.glob("*/result.json"):
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"by_instance": {"mean": [0.25, 0.5, 0.625], "interval": [0.1] * 3}}))
    text = made(runs, capsys)
    assert text.count("By instance") == 1 and "<th>3rd</th>" in text and "<th>4th</th>" not in text
    assert text.count("<td>62.50</td>") == 2 and "MANN (S. 2016)</td><td></td><td>82.8</td><td></td>" in text
    run(["report", str(runs), "format=markdown"])
    shown = capsys.readouterr().out
    assert "| 1st | 2nd | 3rd |" in shown and "| 25.00 | 50.00 | 62.50 |" in shown


def test_a_run_that_names_other_code_is_not_obeyed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in runs.rglob("config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["data"] = {"_target_": "os.system", "command": f"touch {runs / 'obeyed'}"}
        path.write_text(yaml.safe_dump(config))
    assert "os.system" in made(runs, capsys)
    assert not (runs / "obeyed").exists()


def browse(page: Path, *more: str) -> str:
    assert BROWSER
    command = [BROWSER, *FLAGS, f"--user-data-dir={page.parent / 'profile'}", *more, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs chromium: apt-get install chromium")
def test_in_a_browser_charts_are_drawn_and_a_click_sorts(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = made(runs, capsys)
    (runs / "clicked.html").write_text(text.replace("</body>", f"{CLICK}</body>"))
    shown = browse(runs / "page.html", "--dump-dom")
    assert shown.count("<svg") == 3 and shown.count("<polyline") == 4 + 4 + 2
    assert "NaN" not in re.sub(r"<script.*?</script>", "", shown, flags=re.DOTALL)

    def methods(dom: str) -> list[str]:
        first = dom.index("<td title=")  # of the protocol's own table, which comes after the one of all protocols
        return re.findall(r'<td title="[^"]*">(\w+)', dom[first : dom.index("</tbody>", first)])

    assert methods(shown) == ["protonet", "maml"]
    clicked = browse(runs / "clicked.html", "--dump-dom")
    assert methods(clicked) == ["maml", "protonet"] and 'aria-sort="ascending"' in clicked
    browse(runs / "page.html", f"--screenshot={runs / 'page.png'}", "--window-size=1200,900")
    assert (runs / "page.png").stat().st_size > 20_000
