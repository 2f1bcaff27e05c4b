"""Cross-domain tables: for each method, a row for each data set that it was trained on, a column for each tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fsl_cli.errors import typed
from fsl_cli.report import markup
from fsl_cli.report.formats import number
from fsl_cli.report.protocol import protocol
from fsl_cli.report.rows import Row, Section, differences
from fsl_cli.runs.records import Result
from fsl_cli.runs.result_lines import rows_words, unlabelled_words, weights_words
from fsl_cli.runs.wording import task_words

HOME = "†"
EXPLAINED = f"{HOME}: tested on new classes of a data set that it was trained on."
OF_DATA = ("data", "images", "split", "split_hash", "rotations", "sampling", "trained_on")  # of a protocol
Plain = Callable[[str], str]


class Transfer(NamedTuple):
    """One method on one kind of task: several sources or several targets, and a test away from home."""

    title: str  # protonet, 5-way 5-shot
    protocol: str  # what else all cells have in common
    sources: list[str]  # data sets trained on
    targets: list[str]  # data sets tested on
    cells: dict[tuple[str, str], Row]  # by source and target


def transfers(sections: Sequence[Section]) -> list[Transfer]:
    """The cross-domain tables of all rows; none where every method has one source and one target, or stayed at home."""
    rows = [row for section in sections for row in section.rows]
    targets = _targets(rows)
    groups: dict[Any, list[dict[tuple[str, str], Row]]] = {}
    for row, name in zip(rows, _names(rows), strict=True):
        key = name, _task(row.result)
        place = row.result.trained_on, targets[_tested(row.result)]
        tables = groups.setdefault(key, [])
        free = next((cells for cells in tables if place not in cells), None)
        if free is None:
            tables.append(free := {})
        free[place] = row
    found = [_transfer(name, cells) for (name, _), tables in groups.items() for cells in tables if _is_wanted(cells)]
    return sorted(found, key=lambda each: each.title)


def _is_wanted(cells: dict[tuple[str, str], Row]) -> bool:
    away = any(not at_home(row.result) for row in cells.values())
    return away and max(len({place[side] for place in cells}) for side in (0, 1)) > 1


def at_home(result: Result) -> bool:
    """Whether a test is of a data set that the run was trained on."""
    return result.data == result.trained_on or result.data in result.trained_on.split("+")


def _transfer(name: str, cells: dict[tuple[str, str], Row]) -> Transfer:
    first = next(iter(cells.values())).result
    counts = sorted({row.result.episodes for row in cells.values()})
    episodes = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    balance = " on average, shares by Dirichlet(2)" if first.query_balance == "dirichlet" else ""
    line = (
        f"{first.query} queries a class{balance}{unlabelled_words(first)}, {episodes} episodes, {first.inference}"
        f"{rows_words(first)}{weights_words(first)}"
    )
    sources, targets = (sorted({place[side] for place in cells}) for side in (0, 1))
    title = f"{name}, {task_words(first.way, first.shot, first.metric)}"
    return Transfer(title, line, [*sources], [*targets], cells)


def _tested(result: Result) -> tuple[Any, ...]:
    return result.data, result.split_hash, result.rotations, result.sampling


def _targets(rows: Sequence[Row]) -> dict[tuple[Any, ...], str]:
    """What each split that was tested is called: its data set, and what tells it from other splits of that."""
    tested = {_tested(row.result): row.result for row in rows}
    names = {}
    for key, result in tested.items():
        alike = [other for other in tested.values() if other.data == result.data]
        parts = [part for part in ("split", "rotations", "sampling") if len({getattr(o, part) for o in alike}) > 1]
        words = [f"{part}={getattr(result, part)}" for part in parts]
        names[key] = " ".join([result.data, *(words if words or len(alike) == 1 else [result.split_hash[:10]])])
    return names


def _names(rows: Sequence[Row]) -> list[str]:
    """Each row's method: the algorithm, the network, what a test changed, and what tells two apart in one cell."""
    usual: list[list[str]] = []
    for row in rows:
        keys = [key for key in row.settings if key.startswith("test.") and key != "test.unfinished"]
        keys += ["backbone.finetune"] if row.settings.finetune else []
        usual.append(keys)
    plain = [(_name(row, keys), _task(row.result)) for row, keys in zip(rows, usual, strict=True)]
    more: dict[Any, list[str]] = {}
    for own in set(plain):
        cells: dict[Any, list[Row]] = {}
        for row, other in zip(rows, plain, strict=True):
            if other == own:
                cells.setdefault(protocol(row.result), []).append(row)
        told = [key for alike in cells.values() if len(alike) > 1 for key in differences([r.settings for r in alike])]
        more[own] = list(dict.fromkeys(key for key in told if key.partition(".")[0] != "data"))
    return [
        _name(row, [*keys, *(key for key in more[own] if key in row.settings and key not in keys)])
        for row, keys, own in zip(rows, usual, plain, strict=True)
    ]


def _task(result: Result) -> tuple[Any, ...]:
    """What all cells of a table have in common."""
    return tuple(pair for pair in protocol(result) if pair[0] not in OF_DATA)


def _name(row: Row, keys: Sequence[str]) -> str:
    words = [f"{key.removeprefix('test.')}={typed(row.settings[key])}" for key in keys]
    return " ".join([row.settings.algo, *([] if row.settings.backbone == "conv4" else [row.settings.backbone]), *words])


def table(found: Transfer, plain: Plain = str, sign: str = " ± ") -> list[list[str]]:
    """The header and a line for each source; an empty cell was not tested."""
    lines = [["trained on", *(plain(target) for target in found.targets)]]
    for source in found.sources:
        cells = [found.cells.get((source, target)) for target in found.targets]
        lines.append([plain(source), *("" if row is None else _cell(row, sign) for row in cells)])
    return lines


def _cell(row: Row, sign: str) -> str:
    accuracy = row.result.metric == "accuracy"
    mean, half = number(row.mean, accuracy), number(row.interval, accuracy)
    return f"{mean}{sign}{half}{f' {HOME}' if at_home(row.result) else ''}"


def markdown(found: Sequence[Transfer]) -> str:
    """Nothing where there is none."""
    blocks = []
    for each in found:
        first, *rows = table(each, markup.markdown)
        drawn = "\n".join(f"| {' | '.join(line)} |" for line in (first, ["---", *["---:"] * (len(first) - 1)], *rows))
        blocks.append(f"## {markup.markdown(each.title)}\n\n{markup.markdown(each.protocol)}\n\n{drawn}")
    return "".join(f"{block}\n\n" for block in [*blocks, EXPLAINED]).rstrip("\n") + "\n" if found else ""


def latex(found: Sequence[Transfer]) -> str:
    """A table environment for each; nothing where there is none."""
    blocks = []
    for each in found:
        first, *rows = (" & ".join(line) + r" \\" for line in table(each, markup.latex, r" $\pm$ "))
        lines = [
            r"\begin{table}", r"\centering",
            rf"\caption{{{markup.latex(each.title)}. {markup.latex(each.protocol)}. {EXPLAINED}}}",
            rf"\begin{{tabular}}{{l{'r' * len(each.targets)}}}", r"\toprule", first, r"\midrule", *rows,
            r"\bottomrule", r"\end{tabular}", r"\end{table}",
        ]  # fmt: skip
        blocks.append("\n".join(lines).replace(HOME, r"$\dagger$"))
    return "\n\n".join(blocks) + "\n" if blocks else ""
