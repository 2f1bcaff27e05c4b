"""fsl reproduce: the published rows, trained by their recipes to the end, and the tables of what was reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsl_cli.errors import UserError, command

if TYPE_CHECKING:
    from fsl_cli.reproduce.rows import Row

HELP = """Train published rows by their recipes to the end, test them as their papers did, and keep what was reached.

  fsl reproduce                                        the rows, and how far each is
  fsl reproduce maml-omniglot-5w1s data.root=DIR       train it, or go on where it stood, and test it
  fsl reproduce protonet-omniglot-5w1s protonet-omniglot-5w5s data.root=DIR
                                                       one after the other; one that fails does not stop the others
  fsl reproduce maml-omniglot-5w1s run=outputs/RUN     take in a run of the same settings, and go on from there

Beside the rows' names: data.root, trainer, seed, out (outputs) and whatever else changes nothing that is learned; and
trainer.precision=bf16-mixed, twice as fast where a processor has it, which the table then says.
Writes results/NAME.json and, in a checkout, the tables of README.md and docs/measured.md. A row that is recorded there
is done; out=FOLDER results=FOLDER trains it once more, or with another seed, and leaves the tables alone.
Ctrl-C stops and saves; the same command goes on.

Prints, for example:
  row                       test                            paper (%)    ours (%)       state
  maml-omniglot-5w1s        5w1s                            98.7 ± 0.4                  step 12,000 of 60,000
  protonet-omniglot-5w1s    5w1s inductive, 15 queries …    98.8         98.76 ± 0.15   reached

  maml-omniglot-5w1s: fsl train algo=maml data=omniglot way=5 shot=1
  MAML: Finn et al. 2017 (read in the paper), transductive, Conv4-64, stride 2, K queries a class

above: our 95% interval lies above the paper's number; reached: it contains it; short by: the paper's less ours."""

RESULTS = "results"


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl reproduce`. Raises UserError, or Interrupted after Ctrl-C or SIGTERM."""
    from fsl_cli.reproduce.rows import rows
    from fsl_cli.settings.hints import did_you_mean

    names = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    for name in names:
        if name not in rows():
            near = did_you_mean(name, list(rows()))
            raise UserError(f"'{name}' is no row of fsl reproduce, which lists them.{near}")
    out, results = (
        Path(given.pop(key, usual)).expanduser() for key, usual in (("out", "outputs"), ("results", RESULTS))
    )
    taken = given.pop("run", None)
    if not names and (taken or given):
        raise UserError(f"Which row? Type fsl reproduce NAME {' '.join(words)}; fsl reproduce lists the names.")
    if not names:
        _show(list(rows().values()), out, results)
        return
    if taken and len(names) > 1:
        raise UserError(f"run={taken}: of which row? Type one name with it.")
    wanted = [rows()[name] for name in dict.fromkeys(names)]
    _run(wanted, [f"{key}={value}" for key, value in given.items()], taken, out, results)


def _run(wanted: Sequence[Row], typed: Sequence[str], taken: str | None, out: Path, results: Path) -> None:
    from fsl_cli.reproduce.recorded import recorded
    from fsl_cli.reproduce.rows import rows
    from fsl_cli.reproduce.running import demand_rows, reproduce, take_in
    from fsl_cli.reproduce.state import state
    from fsl_cli.reproduce.table import fill_pages
    from fsl_cli.runs.run import Run

    demand_rows(wanted, typed, out, results)
    if taken:
        take_in(wanted[0], Run(taken), out)
    problems, known = [], []
    for row in wanted:
        try:
            known += [row] if state(row, out, results).is_done else []
            reproduce(row, typed, out, results)
        except UserError as error:  # one row's; the others go on
            problems.append(f"{row.name}: {error}")
        else:
            if results.resolve() == Path(RESULTS).resolve():  # the tables of a checkout are of its own results
                for page in fill_pages(Path(), [(each, recorded(results, each)) for each in rows().values()]):
                    print(page)
    _show(wanted, out, results)
    for row in known:
        again = command("fsl", "reproduce", row.name, *typed, "out=FOLDER", "results=FOLDER")
        print(f"{row.name} was done already: {results / row.name}.json. To train it once more: {again}")
    if problems:
        raise UserError("\n".join(problems))


def _show(wanted: Sequence[Row], out: Path, results: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fsl_cli.pictures.console import console
    from fsl_cli.reproduce.state import state
    from fsl_cli.reproduce.table import HEADER, described, lines

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in HEADER:
        table.add_column(name or "state", overflow="fold", no_wrap=name == HEADER[0])  # a name is to be typed
    for row in wanted:
        found = state(row, out, results)
        for line in lines(row, found.tests, found.words()):
            table.add_row(*line)
    console().print(table, highlight=False, markup=False)
    for row in wanted:
        console().print("", *described(row), sep="\n", highlight=False, markup=False, soft_wrap=True)
