"""Names that somebody else chose, in each place that text is written to."""

from __future__ import annotations

import csv
import io
import re
from html import unescape
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from fsl_cli.cli import main
from fsl_cli.errors import UserError, lines, shown
from fsl_cli.files import FORMULA, csv_cell, write_table
from fsl_cli.report.markup import latex, markdown
from fsl_cli.use.page import _html as html

HOSTILE = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "=cmd|'/c calc'!A1",
    "a\nb", "\x1b]0;title\x07", "\x00",
    "\u202egnp.exe", "\u2066a\u2069", "\u200f", "\u200b", "\ufeff", "\u2028", "\udcff\udc80", "a\tb",
    "<script>alert(1)</script>",
    "<img src=x>", "**bold**", "_a_", "`code`", "[a](javascript:alert(1))", "![a](http://b.c)", "a|b",
    "# head", "- item",
    "1. item", "~~no~~", "$x$", "\\input{a}", "{", "50%", "&amp;", "https://a.b", "www.a.b", "@name", "猫", "é",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_shown_is_one_line_without_anything_unseen(name: str) -> None:
    line = shown(name)
    assert line.isprintable() and line.encode()
    assert shown(line) == line


def test_what_is_hidden_stands_as_its_code_and_what_is_spelled_with_joiners_stays() -> None:
    assert shown("a\u202eb\tc\udcff") == "a<U+202E>b<U+0009>c<0xFF>"
    family = "👩\u200d👧"
    assert shown(family) == family and shown("می\u200cخواهم") == "می\u200cخواهم"
    assert lines("a\nb\u202e") == "a\nb<U+202E>"


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_table_holds_no_formula_and_one_line_a_row(name: str, tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ["file", name], [[name, 0.5], [name, -2]])
    content = (tmp_path / "a.csv").read_text()
    assert len(content.splitlines()) == 3
    for row in csv.reader(io.StringIO(content)):
        assert not re.match(r"[=+\-@\t\r＝＋－＠]", row[0])
        assert row[1] in ("0.5", "-2") or not row[1].startswith(FORMULA)


def test_numbers_and_harmless_names_stay_what_they_are_in_a_table() -> None:
    cells = ["-2", "+1e-3", "ash", "a=b", "x-y", -3, 0.5, None, "'quoted"]
    assert [csv_cell(cell) for cell in cells] == cells


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_markdown_shows_the_name_and_nothing_of_its_markup(name: str) -> None:
    render = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for page in (markdown(name), f"| a |\n| --- |\n| {markdown(name)} |"):
        made = re.sub(r"</?(p|table|thead|tbody|tr|th|td)>", "", render.render(page)).strip()
        assert unescape(made.removeprefix("a\n")).strip() == shown(name).strip()
    assert not re.search(r"@|://|www", markdown(name))  # which GitHub makes links of


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_html_and_latex_have_no_markup_left(name: str) -> None:
    assert not re.search(r"<(?!U\+|0x)", html(name).replace("&lt;", ""))
    plain = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}|\\dots\{\}|\$\\(pm|times)\$", "", latex(name))
    assert not re.search(r"[\\&%$#_{}^~]", plain)


def test_error_messages_move_no_cursor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(words: list[str]) -> None:
        raise UserError("two\nlines, \x1b[2J\u202e")

    monkeypatch.setattr("fsl_cli.cli.run", refuse)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "fsl: two\nlines, <U+001B>[2J<U+202E>\n"
