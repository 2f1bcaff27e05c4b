"""The rows as a table, each test beside its paper's number; and the pages that show it between two comments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from fsl_cli.errors import command, shown
from fsl_cli.files import write_text
from fsl_cli.reproduce.recorded import FULL, Entry
from fsl_cli.reproduce.rows import Row, RowTest
from fsl_cli.runs.published import Published

HEADER = ("row", "test", "paper (%)", "ours (%)", "", "trained")
PAGES = {"docs/measured.md": True, "README.md": False}  # below the repository; whether rows stand there that are open
BEGIN, END = "<!-- reproduced: fsl reproduce writes it -->\n", "<!-- end of reproduced -->\n"
NONE = "No row is trained to its end yet.\n"


def lines(row: Row, tests: dict[str, Entry], state: str) -> list[list[str]]:
    """A line for each test of a row; `state` where it has no number."""
    found = []
    for number, test in enumerate(row.tests):
        about = tests.get(test.words)
        found.append(
            [
                "" if number else row.name,
                task(test, about),
                test.paper.accuracy if test.paper else "–",
                "" if about is None else "{:.2f} ± {:.2f}".format(*_per_cent(about)),
                state if about is None else verdict(test.paper, about),
                "" if number or about is None else trained(about),
            ]
        )
    return found


def task(test: RowTest, about: Entry | None) -> str:
    """5w1s transductive, 1 query: the protocol where it is recorded, else what is typed for it."""
    if about is None:
        inference = test.paper and test.paper.inference
        return " ".join(part for part in (test.task, inference, test.words) if part)
    told = [word for word in test.words.split() if word.startswith("algo.")]
    query = about["query"]
    queries = f"{query} {'query' if query == 1 else 'queries'} a class"
    return ", ".join([f"{test.task} {about['inference']}", queries, *told])


def verdict(paper: Published | None, about: Entry) -> str:
    """Where ours stands: above the paper's number, reached (within our interval), or by how much it falls short."""
    if paper is None:
        return ""
    theirs = float(paper.accuracy.partition("±")[0])
    mean, interval = _per_cent(about)
    if mean - interval > theirs:
        return "above"
    return "reached" if mean + interval >= theirs else f"short by {theirs - mean:.2f}"


def trained(about: Entry) -> str:
    """How long, when and on what: 3.2 h, 1 thread, bf16-mixed, 2026-11-27."""
    where = about["environment"]
    hours = about["training_seconds"] / 3600
    threads = where.get("threads")
    machine = ", ".join(map(str, where.get("gpus") or [])) or f"{threads} thread{'' if threads == 1 else 's'}"
    processor = [str(where["processor"])] if where.get("processor") and not where.get("gpus") else []
    digits = [about["precision"]] if about["precision"] != FULL else []
    return shown(", ".join([f"{hours:.1f} h", machine, *processor, *digits, about["when"]]))


def described(row: Row, code: str = "") -> list[str]:
    """A row's command, between marks of `code`, and the protocols of its papers, a line each."""
    words = command("fsl", "train", *row.words, *(["init=RUN"] if row.init else []))
    whose = f", on the backbone of {row.init}" if row.init else ""
    papers = dict.fromkeys(test.paper.remarks() for test in row.tests if test.paper)
    return [f"{row.name}: {code}{words}{code}{whose}", *papers]


def markdown(rows: Sequence[tuple[Row, dict[str, Entry]]], with_open: bool) -> str:
    """The table for a page; `with_open`: with the rows that are not trained yet, and the command of each."""
    told = [(row, tests) for row, tests in rows if tests or with_open]
    if not told:
        return NONE
    body = [[*own, _safe(where)] for row, tests in told for *own, where in lines(row, tests, "open")]
    page = [_line(HEADER), _line(["---"] * len(HEADER)), *map(_line, body)]
    if with_open:
        page += ["", *("- " + "  \n  ".join(described(row, "`")) for row, _ in told)]
    return "\n".join(page) + "\n"


def filled(page: str, rows: Sequence[tuple[Row, dict[str, Entry]]], with_open: bool) -> str:
    """A page with the table as it is now, where it has a place for it."""
    return re.sub(f"(?<={BEGIN}).*?(?={END})", lambda _: markdown(rows, with_open), page, flags=re.DOTALL)


def fill_pages(root: Path, rows: Sequence[tuple[Row, dict[str, Entry]]]) -> list[Path]:
    """Bring the pages below `root` up to date; returns those that changed."""
    changed = []
    for name, with_open in PAGES.items():
        path = root / name
        if path.exists() and (new := filled(old := path.read_text(encoding="utf-8"), rows, with_open)) != old:
            write_text(path, new)
            changed.append(path)
    return changed


def _per_cent(about: Entry) -> tuple[float, float]:
    return 100 * about["mean"], 100 * about["interval"]


def _safe(text: str) -> str:
    """What another machine says of itself, as a cell: no HTML, no link, no cell of its own."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", escape(text, quote=False))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
