"""fsl report: runs side by side, as far as they may stand there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsl_cli.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from fsl_cli.report.gather import Gathered
    from fsl_cli.report.rows import Section

HELP = """Put the tests of any runs side by side: a table for each protocol, a row for each method, over its seeds.

  fsl report outputs                                   all runs in a folder, and what fsl test added to them
  fsl report outputs/RUN_A outputs/RUN_B
  fsl report outputs format=markdown                   also csv, latex
  fsl report outputs to=table.tex                      into a file, whose ending tells the format
  fsl report outputs html=true                         and a page with curves and episodes: report.html, or to=…

Prints, for example (in a terminal the best is bold):
  omniglot 5-way 1-shot
  omniglot vinyals split (66d5ce15b8), rotations=all, 15 queries a class, 1000 episodes, inductive (norm=running), …
  method         seeds   accuracy (%)   ± episodes   ± seeds
  simpleshot         1         *97.83         0.21
  rfs                1          97.63         0.22
  metabaseline       1          97.47         0.23

± episodes and ± seeds are two intervals of the mean: over the test episodes, and over the seeds. The best number is in
bold only when the interval of its paired difference to each other excludes zero. Of two tests with the same settings,
seed and protocol the newer counts."""

ENDINGS = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".txt": "table", ".html": "html", ".htm": "html"}
FORMATS = ("table", "markdown", "csv", "latex")
NAMED = 3  # folders in a remark


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl report`. Raises UserError when there is nothing to report, or not all of it."""
    folders, form, page, to = _take(words)
    from fsl_cli.files import demand_writable
    from fsl_cli.report.gather import gather
    from fsl_cli.report.rows import sections

    if to:
        demand_writable(to, "Choose another with to=FILE.")
    gathered = gather(folders)
    found = sections(gathered.tests)
    if to and not page:
        _write(to, _text(found, form))
        print(to)
        return
    if form == "table":
        _print(found, gathered)
    else:
        print(_text(found, form), end="")
    if to:
        _write_page(to, found, gathered)


def _write_page(to: Path, found: list[Section], gathered: Gathered) -> None:
    from fsl_cli.report.episodes import look
    from fsl_cli.report.page import page

    _write(to, page(found, gathered, look(found)))
    print(f"page  {to}", file=sys.stderr)


def _take(words: Sequence[str]) -> tuple[list[Path], str, bool, Path | None]:
    """Folders, format, whether a page is wanted, and the file to write if any."""
    from fsl_cli.settings.compose import did_you_mean

    given = {"format": "", "html": "", "to": ""}
    folders = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in given:
            given[key] = value
        elif word.startswith("-") or (equals and not Path(word).exists()):
            raise UserError(
                f"fsl report takes folders, and {', '.join(f'{name}=' for name in given)}; not '{word}'."
                f"{did_you_mean(key.lstrip('-'), list(given))}"
            )
        else:
            folders.append(Path(word))
    if not folders:
        raise UserError("Which runs? Type fsl report FOLDER …; every fsl train prints its folder, below outputs.")
    if given["html"] not in ("", "true", "false"):
        raise UserError(f"html={given['html']} is neither true nor false. Type html=true.")
    to = Path(given["to"]).expanduser() if given["to"] else None
    by_ending = ENDINGS.get(to.suffix.lower(), "") if to else ""
    form = given["format"] or (by_ending if by_ending in FORMATS else "table")
    if form not in FORMATS:
        raise UserError(f"format={form}: type {', '.join(FORMATS)}.{did_you_mean(form, FORMATS)}")
    if to and not by_ending and not given["format"] and given["html"] != "true":
        raise UserError(f"to={to}: which format? Type an ending such as {', '.join(ENDINGS)}, or format=….")
    if to and given["html"] == "true" and by_ending not in (None, "html"):
        raise UserError(f"to={to} html=true: the page's name must end in .html. Leave out html=true for {by_ending}.")
    page = given["html"] == "true" or (by_ending == "html" and given["html"] != "false")
    return folders, form, page, to or (Path("report.html") if page else None)


def _text(found: list[Section], form: str) -> str:
    from fsl_cli.report import formats

    writers: dict[str, Callable[[list[Section]], str]] = {
        "markdown": formats.markdown,
        "csv": formats.as_csv,
        "latex": formats.latex,
        "table": _drawn,
    }
    return writers[form](found)


def _write(to: Path, text: str) -> None:
    from fsl_cli.files import write_text, writing

    with writing(to, "Choose another with to=FILE."):
        write_text(to, text)


def _print(found: list[Section], gathered: Gathered) -> None:
    from fsl_cli.pictures.console import console

    screen = console()
    _tables(screen, found)
    for folders, what in ((gathered.untested, "not tested"), (gathered.repeats, "repeated by a newer test")):
        if folders:
            names = ", ".join(map(str, folders[:NAMED])) + (", …" if len(folders) > NAMED else "")
            screen.print(f"left out, {what} ({len(folders)}): {names}", highlight=False, soft_wrap=True)


def _drawn(found: list[Section]) -> str:
    """The terminal's tables as plain text."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=120)
    _tables(console, found)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _tables(console: Console, found: list[Section]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from fsl_cli.report.formats import EXPLAINED, THEIRS, Notes, table

    notes, mark = Notes(), "[bold]{}[/]" if console.is_terminal else "*{}"
    for section in found:
        (first, *others), *rows = table(section, notes, mark.format, escape)
        drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        drawn.add_column(first, overflow="fold")
        for name in others:
            drawn.add_column(name, justify="right")
        for row in rows:
            drawn.add_row(*row)
        console.print(f"[bold]{escape(section.title)}[/]\n{escape(section.protocol)}", highlight=False, soft_wrap=True)
        console.print(drawn)
        console.print()
    starred = any(row.best for section in found for row in section.rows)
    explained = EXPLAINED if console.is_terminal else EXPLAINED.replace("Bold", "*")
    if starred:
        console.print(explained, style="dim", highlight=False, soft_wrap=True)
    if notes.lines:
        lines = [THEIRS, *(f"{escape(f'[{i}]')} {escape(line)}" for i, line in enumerate(notes.lines, 1))]
        console.print("\n".join(lines), style="dim", highlight=False, soft_wrap=True)
