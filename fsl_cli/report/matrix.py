"""The table that a paper needs: a row for each method, a column for each protocol, several data sets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fsl_cli.errors import UserError, typed
from fsl_cli.report.protocol import COLUMN, protocol
from fsl_cli.report.rows import NAMED, Row, Section, differences
from fsl_cli.runs.published import backbone_name

ROWS, COLUMNS = ("algo",), ("data", "way", "shot")  # where nothing else is typed
AROUND = ("images", "split_hash", "episode_seed", "channels")  # of a protocol: follow from the rest, or are no word


class Line(NamedTuple):
    """One method in all columns."""

    name: str
    norms: str  # whose statistics normalised
    cells: list[Row | None]


class Matrix(NamedTuple):
    """Each column is one protocol: cells of one column may be compared."""

    heads: list[tuple[str, str]]  # the data set, and the rest
    sections: list[Section]  # of each column
    lines: list[Line]


def matrix(sections: Sequence[Section], rows: Sequence[str] = ROWS, columns: Sequence[str] = COLUMNS) -> Matrix:
    """Sections side by side. Raises UserError where `rows` is no setting, or `columns` is no part of a protocol.

    Protocols that `columns` does not tell apart keep columns of their own, with what tells them apart in their heads;
    so do methods that `rows` does not, in their names.
    """
    _demand_known(sections, rows, columns)
    cells: dict[str, list[Row | None]] = {}
    names = _row_names(sections, rows)
    for number, section in enumerate(sections):
        for row, name in zip(section.rows, names[number], strict=True):
            cells.setdefault(name, [None] * len(sections))[number] = row
    lines = [Line(name, _norms(found), found) for name, found in cells.items()]
    return Matrix(_heads(sections, columns), list(sections), lines)


def _demand_known(sections: Sequence[Section], rows: Sequence[str], columns: Sequence[str]) -> None:
    from fsl_cli.settings.hints import did_you_mean

    settings = {"norm", *(key for section in sections for row in section.rows for key in row.settings)}
    for word, keys, known in (("rows", rows, settings), ("columns", columns, set(COLUMN))):
        for key in keys:
            if key not in known:
                near = did_you_mean(key, sorted(known))
                some = (
                    ", ".join(sorted(known)) if word == "columns" else "a setting of these runs, such as algo, backbone"
                )
                raise UserError(f"{word}={key}: type {some}.{near}")
        if not keys:
            raise UserError(f"{word}= is empty. Type {word}={','.join(ROWS if word == 'rows' else COLUMNS)}.")


def _heads(sections: Sequence[Section], columns: Sequence[str]) -> list[tuple[str, str]]:
    flat = [dict(protocol(section.result)) for section in sections]
    heads = []
    for own in flat:
        regresses = own["metric"] != "accuracy"  # one curve or language, which has no classes
        rest = [_word(key, own[key]) for key in columns if key != "data" and not (key == "way" and regresses)]
        heads.append((str(own["data"]) if "data" in columns else "", " ".join(rest)))
    told = []
    for head, own in zip(heads, flat, strict=True):
        alike = [other for other, same in zip(flat, heads, strict=True) if same == head]
        apart = [key for key in own if len({repr(other[key]) for other in alike}) > 1]
        words = [key for key in apart if key not in AROUND] or apart
        told.append((head[0], " ".join([*([head[1]] if head[1] else []), *(_word(key, own[key]) for key in words)])))
    return told


def _word(key: str, value: Any) -> str:
    if key in ("way", "shot"):
        return f"{'-'.join(map(str, value)) if isinstance(value, tuple) else value}-{key}"
    return str(value) if key in ("data", "inference") else f"{key}={typed(value)}"


def _row_names(sections: Sequence[Section], keys: Sequence[str]) -> list[list[str]]:
    """The names of each section's rows. If two rows of a section share a name, it gets more settings everywhere."""
    plain = [[" ".join(_setting(row, key) for key in keys) for row in section.rows] for section in sections]
    more: dict[str, list[str]] = {}
    for section, names in zip(sections, plain, strict=True):
        for name in {name for name in names if names.count(name) > 1}:
            own = [row.settings for row, that in zip(section.rows, names, strict=True) if that == name]
            found = differences(own)
            told = [key for key in found if key.partition(".")[0] not in found or "." not in key]
            more[name] = list(dict.fromkeys([*more.get(name, []), *told]))
    named = []
    for section, names in zip(sections, plain, strict=True):
        full = [
            " ".join(
                [name, *(f"{k}={typed(row.settings[k])}" for k in more.get(name, [])[:NAMED] if k in row.settings)]
            )
            for row, name in zip(section.rows, names, strict=True)
        ]
        named.append([n if full.count(n) == 1 else f"{n} #{full[:i].count(n) + 1}" for i, n in enumerate(full)])
    return named


def _setting(row: Row, key: str) -> str:
    if key == "backbone":
        return backbone_name(row.settings, row.result)
    return str(row.result.norm) if key == "norm" else typed(row.settings.get(key, "-"))


def _norms(cells: Sequence[Row | None]) -> str:
    return ", ".join(dict.fromkeys(str(row.result.norm) for row in cells if row))
