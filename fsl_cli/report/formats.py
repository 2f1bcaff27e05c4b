"""A report as text: Markdown, CSV, LaTeX, and the cells of the terminal's table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from statistics import fmean

from fsl_cli.errors import shown
from fsl_cli.files import csv_cell
from fsl_cli.report import markup
from fsl_cli.report.attacked import attacked, attacked_columns
from fsl_cli.report.data_sets import data_set_columns
from fsl_cli.report.instances import instance_columns
from fsl_cli.report.rows import Row, Section
from fsl_cli.runs.published import Published, backbone_name
from fsl_cli.runs.wording import MEASURES

EXPLAINED = (
    "±: half a 95% interval of the mean, over seeds and episodes together where there are several seeds, else over "
    "the episodes of that one run (1.96 standard errors). ± episodes, ± seeds: the same of either alone (seeds: "
    "Student's t). Bold: the 95% interval of its paired difference to every other row excludes zero, by Student's t; "
    "over seeds and episodes, as far as a method has several seeds."
)
EXPLAINED_BELIEF = (
    "ECE, NLL: calibration error and negative log-likelihood of the probabilities, by a temperature fitted on "
    "validation where there is one. AUROC: of telling pictures of other classes (fsl test open=true). The CSV has more."
)
EXPLAINED_INSTANCES = (
    "1st, 2nd, …: of learners that read a task as a sequence, accuracy at the first, second, … image of a class, "
    "before its label is shown; in regression the error at so many examples."
)
THEIRS = "Published numbers were reached under the papers' protocols, as far as known:"
# of a result, for CSV
COLUMNS = (
    "data", "split", "split_hash", "images", "rotations", "sampling", "part", "way", "shot", "query", "query_balance",
    "unlabelled", "distractors", "episodes", "episode_seed", "norm", "inference", "class_rows", "trained_on",
    "pretrained", "seen", "metric",
)  # fmt: skip
BELIEVED = (
    "calibration_error", "calibration_error_after", "nll", "nll_after", "unknown_auroc", "unknown_caught",
    "known_accuracy",
)  # fmt: skip
Strong = Callable[[str], str]


class Notes:
    """Numbers for the published figures' remarks, in the order in which they come up."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def number(self, published: Published) -> int:
        line = published.remarks()
        if line not in self.lines:
            self.lines.append(line)
        return self.lines.index(line) + 1


def table(section: Section, notes: Notes, strong: Strong = str, plain: Strong = str) -> list[list[str]]:
    """The header and the rows' cells; `strong` marks the best number, `plain` escapes words.

    Columns in which all rows agree, or that none fills, are left out.
    """
    accuracy = section.metric == "accuracy"
    rows = section.rows
    several = any(len(row.tests) > 1 for row in rows)
    means = [number(row.mean, accuracy) for row in rows]
    columns: dict[str, list[str]] = {"method": [plain(row.name) for row in rows]}
    for key in ("norm", "episodes"):
        if len({getattr(row.result, key) for row in rows}) > 1:
            columns[key] = [plain(str(getattr(row.result, key))) for row in rows]
    columns["seeds"] = [str(len(row.tests)) for row in rows]
    measure = MEASURES[section.metric]
    columns[measure] = [strong(mean) if row.best else mean for row, mean in zip(rows, means, strict=True)]
    columns["±"] = [number(row.interval, accuracy) for row in rows]
    if several:
        columns["± episodes"] = [number(row.episodes_interval, accuracy) for row in rows]
        columns["± seeds"] = [number(row.seeds_interval, accuracy) for row in rows]
    for name, each in data_set_columns(rows).items():
        columns[name] = [number(value, accuracy) for value in each]
    for name, values in (belief(rows) | attacked_columns(rows)).items():
        columns[name] = [plain(value) for value in values]
    for name, shares in instance_columns(rows).items():
        columns[name] = ["" if share is None else number(share, accuracy) for share in shares]
    if any(row.published for row in rows):
        papers = [row.published for row in rows]
        columns["published"] = [f"{plain(p.accuracy)} [{notes.number(p)}]" if p else "" for p in papers]
    return [[plain(name) for name in columns], *map(list, zip(*columns.values(), strict=True))]


def number(value: float, accuracy: bool) -> str:
    """Per cent, or an error; nothing where there is none."""
    return "" if math.isnan(value) else f"{100 * value:.2f}" if accuracy else f"{value:.3f}"


def markdown(sections: Sequence[Section]) -> str:
    notes, blocks = Notes(), []
    for section in sections:
        first, *rows = table(section, notes, lambda best: f"**{best}**", markup.markdown)
        rule = ["---", *["---:"] * (len(first) - 1)]
        drawn = "\n".join(f"| {' | '.join(line)} |" for line in (first, rule, *rows))
        blocks.append(f"## {markup.markdown(section.title)}\n\n{markup.markdown(section.protocol)}\n\n{drawn}")
    remarks = [f"[{i}] {markup.markdown(line)}" for i, line in enumerate(notes.lines, 1)]
    return "\n\n".join([*blocks, explained(sections), *([THEIRS, *remarks] if remarks else [])]) + "\n"


def latex(sections: Sequence[Section]) -> str:
    r"""A table environment for each section; needs \usepackage{booktabs}."""
    notes, blocks = Notes(), []
    for section in sections:
        first, *rows = (
            " & ".join(cells) + r" \\"
            for cells in table(section, notes, lambda best: rf"\textbf{{{best}}}", markup.latex)
        )
        blocks.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{markup.latex(section.title)}. {markup.latex(section.protocol)}.}}",
                    rf"\begin{{tabular}}{{l{'r' * first.count(' & ')}}}",
                    r"\toprule",
                    first,
                    r"\midrule",
                    *rows,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    remarks = [f"[{i}] {shown(line)}" for i, line in enumerate(notes.lines, 1)]
    comments = ["needs \\usepackage{booktabs}", explained(sections), *([THEIRS, *remarks] if remarks else [])]
    return "\n".join(f"% {line}" for line in comments) + "\n" + "\n\n".join(blocks) + "\n"


def calibration_columns(row: Row) -> list[float | str]:
    """How far a method's probabilities can be believed, and how it tells what is of no class; means over the seeds."""
    tests = [test.outcome.result for test in row.tests]
    columns = [[result.ece, result.ece_calibrated, result.loss, result.loss_calibrated] for result in tests]
    columns = [
        [*own, *((result.open or {}).get(name) for name in ("auroc", "caught", "accuracy"))]
        for own, result in zip(columns, tests, strict=True)
    ]
    whole = [[value for value in column if value is not None] for column in zip(*columns, strict=True)]
    return [fmean(values) if len(values) == len(tests) else "" for values in whole]


def belief(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Columns of a table, of those numbers that a row has: probabilities as they are used, and unknown pictures."""
    found: dict[str, list[str]] = {"ECE (%)": [], "NLL": [], "AUROC (%)": []}
    for row in rows:
        all_of = dict(zip(BELIEVED, calibration_columns(row), strict=True))
        ece, nll = (value if (value := all_of[f"{name}_after"]) != "" else all_of[name] for name in BELIEVED[:4:2])
        nll = nll if ece != "" else ""  # of a regression there is an error alone
        for name, value in zip(found, (ece, nll, all_of["unknown_auroc"]), strict=True):
            found[name].append("" if isinstance(value, str) else number(value, name != "NLL"))
    return {name: values for name, values in found.items() if any(values)}


def explained(sections: Sequence[Section]) -> str:
    """What stands in the tables."""
    found = [EXPLAINED]
    found += [EXPLAINED_BELIEF] if any(belief(each.rows) for each in sections) else []
    found += [EXPLAINED_INSTANCES] if any(instance_columns(each.rows) for each in sections) else []
    return " ".join(found)


def as_csv(sections: Sequence[Section]) -> str:
    """One table of all sections, with the protocol in columns and numbers unrounded, accuracies 0..1."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ours = ("method", "backbone", "seeds", "mean", "interval", "episodes_interval", "seeds_interval", "best")
    paired = ("behind_the_first", "behind_interval", "behind_p")
    told = ("accuracy", "source", "mark", "inference", "note", "differs")
    theirs = ("published_percent", *(f"published_{name}" for name in told[1:]))
    writer.writerow(
        [
            *COLUMNS,
            "image_channels",
            "image_size",
            *ours,
            *BELIEVED,
            "attacked",
            "attacked_interval",
            *paired,
            *theirs,
            "runs",
        ]
    )
    for section in sections:
        for row in section.rows:
            result, behind, paper = row.result, row.behind, row.published
            writer.writerow(
                csv_cell(cell)
                for cell in [
                    *(getattr(result, name) for name in COLUMNS), result.image.channels, result.image.size,
                    row.name, backbone_name(row.settings, row.result),
                    " ".join(str(t.outcome.result.seed) for t in row.tests),
                    row.mean, row.interval, row.episodes_interval,
                    "" if math.isnan(row.seeds_interval) else row.seeds_interval, row.best,
                    *calibration_columns(row),
                    *(attacked(row) or ("", "")),
                    *([behind.mean, behind.interval, behind.p] if behind else ["", "", ""]),
                    *(getattr(paper, name, "") for name in told),
                    " ".join(str(test.outcome.folder) for test in row.tests),
                ]
            )  # fmt: skip
    return out.getvalue()
