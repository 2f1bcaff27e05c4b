"""fsl show fit: a task of a regression, its points, what was predicted from them, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsl_cli.errors import UserError
from fsl_cli.use.opened import Finished, demand_index, number, open_run, save, words_of_a_run


def show(words: Sequence[str], user_dir: str | None) -> None:
    """The picture that the words after `fsl show fit` ask for. Raises UserError."""
    given = words_of_a_run("fsl show fit", words)
    index = number(given, "index", 0, 0)
    run = open_run(given, f"fit-{index}", user_dir)
    demand_index(run, index)
    if run.experiment.learner.metric == "bits":
        raise UserError(f"{run.experiment.data.name} has texts, and no curve is fitted to points.")
    if run.experiment.learner.metric != "mse":
        raise UserError(
            f"{run.experiment.data.name} has classes, and nothing is fitted to points. Type fsl show episode."
        )
    draw_fits(run.out, run, [index])


def draw_fits(out: Path, run: Finished, index: Sequence[int]) -> None:
    """Write these tasks of a run's test, or validation, and what was predicted. Raises UserError for no curves."""
    from fsl_cli.experiment.fitting import are_drawn, draw

    if not are_drawn(run.experiment):
        raise UserError(
            f"{run.experiment.data.name} has functions of too many variables to be drawn. For algo=l2l, type "
            "fsl show optimizers."
        )

    save(out, lambda path: draw(run.experiment, path, run.part, index))
