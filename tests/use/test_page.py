"""The page of fsl predict: what is doubtful comes first, and names stay names; alive in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from fsl_cli.errors import shown
from fsl_cli.use.page import page
from fsl_cli.use.predictions import Prediction, Predictions

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = '</b><script>document.title="owned"</script>&amp; "$x$" \u202e 猫  שלום'
CLASSES = [HOSTILE, "elm", "oak"]
PIXEL = "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4="


def row(name: str, shares: list[float], true: str | None, unknown: float, none: bool = False) -> Prediction:
    return Prediction(f"new/{name}.jpg", shares, true, True, "known/b.jpg", "known/a.jpg", unknown, none)


ROWS = [
    row("sure", [0.99, 0.009, 0.001], HOSTILE, 0.05),
    row("wrong", [0.02, 0.93, 0.05], "oak", 0.1),
    row("close", [0.1, 0.46, 0.44], "elm", 0.2),
    row("many", [0.64, 0.18, 0.18], HOSTILE, 0.0),
    row("stranger", [0.998, 0.001, 0.001], None, 0.97, none=True),
    row("unseen stranger", [0.0, 0.0, 1.0], None, 0.3),
    row("odd", [1.0, 0.0, 0.0], HOSTILE, 0.51),
]
FOUND = Predictions(
    "runs/a&b", "protonet", CLASSES, {"known/a.jpg": 0, "known/b.jpg": 1}, ROWS, [],
    dict.fromkeys(["known/a.jpg", "known/b.jpg", *(each.file for each in ROWS)], PIXEL), rate=0.05,
)  # fmt: skip


def test_the_reason_for_doubt_is_told_in_words() -> None:
    assert {each.file[4:-4]: FOUND.why(each) for each in ROWS} == {
        "sure": "",
        "wrong": "",
        "close": "two classes are close",
        "many": "several classes are possible",
        "stranger": "far from all classes",
        "unseen stranger": "",
        "odd": "unlike the known pictures",
    }


def test_of_many_classes_two_are_close_where_the_others_are_not() -> None:
    found = FOUND._replace(classes=[*"abcdef"])
    even = row("even", [0.25, 0.24, 0.2, 0.15, 0.1, 0.06], "a", 0.1)
    two = row("two", [0.4, 0.36, 0.1, 0.1, 0.02, 0.02], "a", 0.1)
    assert [found.why(each) for each in (even, two)] == ["several classes are possible", "two classes are close"]


def test_the_most_doubtful_come_first_and_what_is_sure_last() -> None:
    order = [each.file[4:-4] for each in FOUND.doubtful_first()]
    assert order == ["stranger", "close", "odd", "many", "unseen stranger", "wrong", "sure"]
    places = [page(FOUND, None).index(f"new/<wbr>{name}.jpg") for name in order]
    assert places == sorted(places)
    uncalibrated = FOUND._replace(rows=[each._replace(unknown=None) for each in ROWS])
    assert uncalibrated.doubtful_first()[0].file == "new/close.jpg"


def test_the_page_says_what_it_shows() -> None:
    text = page(FOUND, None)
    assert "<h1>7 pictures, 1 of them unknown</h1>" in text
    buttons = dict(re.findall(r'for="(\w+)">\w+ (\d+)<', text))
    assert buttons == {"all": "7", "right": "4", "wrong": "2", "unsure": "3", "unknown": "1"}
    assert text.count("is of no class") == 2 and text.count("is <b>oak</b>") == 1
    assert text.count("nearest of <b>") == text.count("nearest of all: <b>") == 7
    alone = page(FOUND._replace(rows=[each._replace(own=each.nearest) for each in ROWS]), None)
    assert "nearest of <b>" not in alone and alone.count("nearest of all: <b>") == 7
    widths = [float(width) for width in re.findall(r'style="width:([\d.]+)%"><', text)]
    assert widths[-2:] == [9.5, 3.2]  # of the last card: the roots of 0.9% and 0.1%
    assert text.count("if it is one of the classes:") == 1  # where unknown stands above them
    assert not re.search(r"https?://|<script|url\(", text)
    assert unescape(text).count(f"<b>{shown(HOSTILE)}</b>") >= 3 and "<b>owned" not in text


CHOOSE = """<script>
const seen = [];
for (const id of ["right", "wrong", "unsure", "unknown", "all"]) {
  document.querySelector(`label[for=${id}]`).click();
  seen.push([...document.querySelectorAll(".card")].filter(card => getComputedStyle(card).display != "none").length);
}
document.title = "shown " + seen;
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs chromium: apt-get install chromium")
def test_in_a_browser_a_click_leaves_pictures_of_one_kind(tmp_path: Path) -> None:
    assert BROWSER
    file = tmp_path / "page.html"
    file.write_text(page(FOUND, None).replace("</html>", f"{CHOOSE}</html>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>shown 4,2,3,1,7</title>" in dom
