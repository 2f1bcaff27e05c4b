"""The table of all protocols as text: Markdown, CSV, LaTeX, and the cells of the terminal's and the page's."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import groupby

from fsl_cli.errors import shown
from fsl_cli.files import csv_cell
from fsl_cli.report import markup
from fsl_cli.report.formats import EXPLAINED, number
from fsl_cli.report.matrix import Matrix
from fsl_cli.report.rows import Row
from fsl_cli.runs.wording import MEASURES

Strong = Callable[[str], str]


def cells(found: Matrix, strong: Strong = str, plain: Strong = str, sign: str = " ± ") -> list[list[str]]:
    """The lines below the heads: the method, its norm where methods differ in it, and an accuracy for each column."""
    norms = several_norms(found)
    return [
        [plain(line.name), *([plain(line.norms)] if norms else []), *(_cell(row, strong, sign) for row in line.cells)]
        for line in found.lines
    ]


def several_norms(found: Matrix) -> bool:
    return len({line.norms for line in found.lines}) > 1


def caption(found: Matrix) -> str:
    """What the numbers are, and what stands behind them in all columns."""
    metrics = {section.metric for section in found.sections}
    measure = ", or ".join(name for metric, name in MEASURES.items() if metric in metrics).capitalize()
    seeds = sorted({len(row.tests) for line in found.lines for row in line.cells if row})
    episodes = sorted({row.result.episodes for line in found.lines for row in line.cells if row})
    norms = {line.norms for line in found.lines}
    facts = [_range(seeds, "seed"), _range(episodes, "episode"), *([f"norm={min(norms)}"] if len(norms) == 1 else [])]
    return f"{measure} with half its 95% interval; {', '.join(facts)}"


def _range(counts: list[int], word: str) -> str:
    few, many = counts[0], counts[-1]
    return f"{few} {word}{'' if few == 1 else 's'}" if few == many else f"{few} to {many} {word}s"


def _cell(row: Row | None, strong: Strong, sign: str) -> str:
    if row is None:
        return ""
    accuracy = row.result.metric == "accuracy"
    mean, half = number(row.mean, accuracy), number(row.interval, accuracy)
    return f"{strong(mean) if row.best else mean}{sign}{half}" if half else mean


def heads(found: Matrix) -> list[str]:
    return [" ".join(filter(None, head)) for head in found.heads]


def markdown(found: Matrix) -> str:
    first = ["method", *(["norm"] if several_norms(found) else []), *heads(found)]
    rule = ["---", *["---:"] * (len(first) - 1)]
    lines = [
        [markup.markdown(word) for word in first],
        rule,
        *cells(found, lambda best: f"**{best}**", markup.markdown),
    ]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    protocols = "\n".join(
        f"- {markup.markdown(head)}: {markup.markdown(s.protocol)}"
        for head, s in zip(heads(found), found.sections, strict=True)
    )
    return f"{drawn}\n\n{markup.markdown(caption(found))}.\n\n{protocols}\n\n{EXPLAINED}\n"


def latex(found: Matrix) -> str:
    r"""One float; needs \usepackage{booktabs}."""
    before = ["method", *(["norm"] if several_norms(found) else [])]
    rows = [
        " & ".join(line) + r" \\" for line in cells(found, lambda best: rf"\textbf{{{best}}}", markup.latex, r" $\pm$ ")
    ]
    lines = [
        "% needs \\usepackage{booktabs}",
        *(f"% {shown(head)}: {shown(s.protocol)}" for head, s in zip(heads(found), found.sections, strict=True)),
        f"% {EXPLAINED}",
        r"\begin{table*}" if len(found.heads) > 4 else r"\begin{table}",
        r"\centering",
        rf"\caption{{{markup.latex(caption(found))}.}}",
        rf"\begin{{tabular}}{{{'l' * len(before)}{'r' * len(found.heads)}}}",
        r"\toprule",
        *_latex_heads(found, before),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}" if len(found.heads) > 4 else r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_heads(found: Matrix, before: list[str]) -> list[str]:
    """The data sets above what is theirs, with a rule below each; one line where there is no second."""
    if not all(all(head) for head in found.heads):
        return [" & ".join([*before, *map(markup.latex, heads(found))]) + r" \\"]
    spans, rules, at = [], [], len(before) + 1
    for data, group in groupby(found.heads, key=lambda head: head[0]):
        width = len(list(group))
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{markup.latex(data)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    above = " & ".join([*[""] * len(before), *spans])
    return [
        above + r" \\",
        " ".join(rules),
        " & ".join([*before, *(markup.latex(rest) for _, rest in found.heads)]) + r" \\",
    ]


def as_csv(found: Matrix) -> str:
    """A line for each method; numbers unrounded, accuracies 0..1."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        map(
            csv_cell,
            ["method", "norm", *(f"{h}{of}" for h in heads(found) for of in ("", " ±", " seeds", " best"))],
        )
    )
    for line in found.lines:
        own = [
            cell
            for row in line.cells
            for cell in ([row.mean, row.interval, len(row.tests), row.best] if row else ["", "", "", ""])
        ]
        writer.writerow(map(csv_cell, [line.name, line.norms, *own]))
    return out.getvalue()
