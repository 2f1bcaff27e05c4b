"""fsl report: the tests of any runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fsl_cli.errors import UserError, shown

if TYPE_CHECKING:
    from rich.console import Console

    from fsl_cli.report.gather import Gathered
    from fsl_cli.report.matrix import Matrix
    from fsl_cli.report.rows import Section

HELP = """Put the tests of any runs side by side: a table for each protocol, a row for each method, over its seeds.

  fsl report outputs                                   all runs in a folder, and what fsl test added to them
  fsl report outputs/RUN_A outputs/RUN_B
  fsl report outputs rows=algo columns=data,way,shot   one table: a row a method, a column a protocol
  fsl report outputs format=markdown                   also csv, latex
  fsl report outputs to=table.tex                      into a file, whose ending tells the format
  fsl report outputs to=curves.png                     all learning curves in one picture; also .pdf, .svg
  fsl report outputs html=true                         and a page with curves and episodes: report.html, or to=…

Prints, for example (in a terminal the best is bold):
  omniglot 5-way 1-shot
  omniglot vinyals split (66d5ce15b8), rotations=all, 15 queries a class, 28 × 28 × 1, inductive, …
  method       norm      seeds   accuracy (%)      ±   ± episodes   ± seeds
  simpleshot   running       3         *97.83   0.31         0.21      0.44
  rfs          running       3          97.43   0.29         0.22      0.40
  maml         support       1          96.47   0.23         0.23

One column has one protocol: data set, split, rotations, way, shot, queries, inductive or transductive. ± is the
interval over seeds and episodes, of one seed over the episodes alone. Where a method was tested on other data sets than
it was trained on, a table of sources and targets follows. The best number is in bold only when its paired
difference to each other excludes zero. Of two tests with the same settings, seed and protocol that of more episodes
counts, then the newer."""

ENDINGS = {
    ".md": "markdown", ".csv": "csv", ".tex": "latex", ".txt": "table", ".html": "html", ".htm": "html",
    ".png": "png", ".pdf": "pdf", ".svg": "svg",
}  # fmt: skip
FORMATS = ("table", "markdown", "csv", "latex")
PICTURES = ("png", "pdf", "svg")
NAMED = 3  # folders in a remark
WIDE = 160  # letters of a line in a file


class Wanted(NamedTuple):
    folders: list[Path]
    form: str  # one of FORMATS
    page: bool
    to: Path | None
    picture: str  # one of PICTURES, or ""
    rows: list[str]  # of the one table of all, where it is asked for
    columns: list[str]


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl report`. Raises UserError when there is nothing to report, or not all of it."""
    wanted = _take(words)
    from fsl_cli.files import demand_writable
    from fsl_cli.report.gather import gather
    from fsl_cli.report.matrix import matrix
    from fsl_cli.report.rows import sections

    to = wanted.to
    if to:
        demand_writable(to, "Choose another with to=FILE.")
    gathered = gather(wanted.folders)
    if wanted.picture:
        _draw_curves(gathered, wanted)
        return
    found = sections(gathered.tests)
    one = matrix(found, wanted.rows, wanted.columns) if wanted.rows else None
    if to and not wanted.page:
        _write(to, _text(found, one, wanted.form))
        print(to)
        return
    if wanted.form == "table":
        _print(found, one, gathered)
    else:
        print(_text(found, one, wanted.form), end="")
    if to:
        _write_page(to, found, one, gathered)


def _draw_curves(gathered: Gathered, wanted: Wanted) -> None:
    from fsl_cli.files import replacing, writing
    from fsl_cli.pictures.learning import draw
    from fsl_cli.pictures.terminal import inline
    from fsl_cli.report.charts import curve_panels

    assert wanted.to
    panels = curve_panels(gathered.tests)
    if not panels:
        raise UserError("None of these runs has two validations, so there is no learning curve to draw.")
    with writing(wanted.to, "Choose another with to=FILE."), replacing(wanted.to) as temporary:
        draw(panels, temporary, wanted.picture)
    if wanted.picture == "png":
        inline(wanted.to)
    print(wanted.to)


def _write_page(to: Path, found: list[Section], one: Matrix | None, gathered: Gathered) -> None:
    from fsl_cli.report.episodes import hardest_and_easiest
    from fsl_cli.report.page import page

    _write(to, page(found, one, gathered, hardest_and_easiest(found)))
    print(f"page  {to}", file=sys.stderr)


def _take(words: Sequence[str]) -> Wanted:
    """What the words ask for. Raises UserError."""
    from fsl_cli.settings.hints import did_you_mean

    given = {"format": "", "html": "", "to": "", "rows": "", "columns": ""}
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
            folders.append(Path(word).expanduser())
    if not folders:
        raise UserError("Which runs? Type fsl report FOLDER …; every fsl train prints its folder, below outputs.")
    to = Path(given["to"]).expanduser() if given["to"] else None
    by_ending = ENDINGS.get(to.suffix.lower(), "") if to else ""
    form = _form(given, to, by_ending)
    page = given["html"] == "true" or (by_ending == "html" and given["html"] != "false")
    return Wanted(folders, form, page, to or (Path("report.html") if page else None),
                  by_ending if by_ending in PICTURES else "", *_table_of_all(given))  # fmt: skip


def _form(given: dict[str, str], to: Path | None, by_ending: str) -> str:
    """The format of the text. Raises UserError where the words contradict each other."""
    from fsl_cli.settings.hints import did_you_mean

    if given["html"] not in ("", "true", "false"):
        raise UserError(f"html={given['html']} is neither true nor false. Type html=true.")
    form = given["format"] or (by_ending if by_ending in FORMATS else "table")
    if form not in FORMATS:
        raise UserError(f"format={form}: type {', '.join(FORMATS)}.{did_you_mean(form, FORMATS)}")
    if to and not by_ending and not given["format"] and given["html"] != "true":
        raise UserError(f"to={to}: which format? Type an ending such as {', '.join(ENDINGS)}, or format=….")
    if to and given["html"] == "true" and by_ending not in ("", "html"):
        raise UserError(f"to={to} html=true: the page's name must end in .html. Leave out html=true for {by_ending}.")
    return form


def _table_of_all(given: dict[str, str]) -> tuple[list[str], list[str]]:
    """The settings of rows=, and the parts of a protocol of columns=; none where neither is typed."""
    from fsl_cli.report.matrix import COLUMNS, ROWS

    if not given["rows"] and not given["columns"]:
        return [], []
    rows, columns = ([each for each in given[key].strip("[]").split(",") if each] for key in ("rows", "columns"))
    return rows or list(ROWS), columns or list(COLUMNS)


def _text(found: list[Section], one: Matrix | None, form: str) -> str:
    from fsl_cli.report import formats, matrix_formats, transfer

    if form == "table":
        return _drawn(found, one)
    if one:
        return {"markdown": matrix_formats.markdown, "csv": matrix_formats.as_csv, "latex": matrix_formats.latex}[form](
            one
        )
    text = {"markdown": formats.markdown, "csv": formats.as_csv, "latex": formats.latex}[form](found)
    across = {"markdown": transfer.markdown, "latex": transfer.latex}.get(form)  # a CSV has a column trained_on
    more = across(transfer.transfers(found)) if across else ""
    return f"{text}\n{more}" if more else text


def _write(to: Path, text: str) -> None:
    from fsl_cli.files import write_text, writing

    with writing(to, "Choose another with to=FILE."):
        write_text(to, text)


def _print(found: list[Section], one: Matrix | None, gathered: Gathered) -> None:
    from fsl_cli.pictures.console import console

    screen = console()
    _tables(screen, found, one)
    for folders, what in ((gathered.untested, "not tested"), (gathered.repeats, "repeated by another test")):
        if folders:
            names = shown(", ".join(map(str, folders[:NAMED])) + (", …" if len(folders) > NAMED else ""))
            screen.print(f"left out, {what} ({len(folders)}): {names}", highlight=False, soft_wrap=True, markup=False)


def _drawn(found: list[Section], one: Matrix | None) -> str:
    """The terminal's tables as plain text."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDE)
    _tables(console, found, one)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _tables(console: Console, found: list[Section], one: Matrix | None) -> None:
    from rich.markup import escape

    from fsl_cli.report import matrix_formats, transfer
    from fsl_cli.report.formats import (
        EXPLAINED,
        EXPLAINED_BELIEF,
        EXPLAINED_INSTANCES,
        THEIRS,
        Notes,
        belief,
        table,
    )
    from fsl_cli.report.instances import instance_columns

    def plain(text: str) -> str:
        return escape(shown(text))

    def remark(text: str) -> None:
        console.print(text, style="dim", highlight=False, soft_wrap=True)

    notes, mark = Notes(), "[bold]{}[/]" if console.is_terminal else "*{}"
    if one:
        norm = ["norm"] if matrix_formats.several_norms(one) else []
        first = ["method", *norm, *(plain("\n".join(head).strip().replace("\n", " ")) for head in one.heads)]
        _print_table(console, [first, *matrix_formats.cells(one, mark.format, plain)], left=len(norm) + 1)
        remark(f"{plain(matrix_formats.caption(one))}.")
    for section in () if one else found:
        console.print(f"[bold]{plain(section.title)}[/]\n{plain(section.protocol)}", highlight=False, soft_wrap=True)
        lines = table(section, notes, mark.format, plain)
        _print_table(console, lines, left=2 if "norm" in lines[0] else 1)
        console.print()
    across = [] if one else transfer.transfers(found)
    for each in across:
        console.print(f"[bold]{plain(each.title)}[/]\n{plain(each.protocol)}", highlight=False, soft_wrap=True)
        _print_table(console, transfer.table(each, plain), left=1)
        console.print()
    if across:
        remark(transfer.EXPLAINED)
    if any(row.best for section in found for row in section.rows):
        remark(EXPLAINED if console.is_terminal else EXPLAINED.replace("Bold", "*"))
    if not one and any(belief(section.rows) for section in found):
        remark(EXPLAINED_BELIEF)
    if not one and any(instance_columns(section.rows) for section in found):
        remark(EXPLAINED_INSTANCES)
    if notes.lines:
        remark("\n".join([THEIRS, *(f"{escape(f'[{i}]')} {plain(line)}" for i, line in enumerate(notes.lines, 1))]))


def _print_table(console: Console, lines: list[list[str]], left: int) -> None:
    """A table whose first line is its head; so many columns stand to the left."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(lines[0]):
        drawn.add_column(name, justify="left" if number < left else "right", overflow="fold")
    for row in lines[1:]:
        drawn.add_row(*row)
    console.print(drawn)
