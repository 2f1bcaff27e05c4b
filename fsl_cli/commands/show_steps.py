"""fsl show steps: accuracy and loss by inner step over a run's test episodes, beyond the trained number of steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fsl_cli.commands.finished import Finished, number, open_run, protocol, save, words_of_a_run
from fsl_cli.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fsl_cli.learner import Learner

LEAST = 10  # steps that are looked at unless told otherwise, where training took few


class AfterSteps(NamedTuple):
    """The mean over the episodes after so many inner steps, each with half the width of its 95% interval."""

    steps: int
    value: float  # accuracy 0..1; in regression the mean squared error
    value_interval: float
    loss: float
    loss_interval: float


def main(words: Sequence[str], user_dir: str | None) -> None:
    """Run the command line after `fsl show steps`. Raises UserError."""
    from fsl_cli.allocator import keep_memory
    from fsl_cli.results import spelled, write_table

    given = words_of_a_run("fsl show steps", words)
    upto = number(given, "upto", 0, 0)
    run = open_run(given, "steps", user_dir)
    learner = run.experiment.learner
    trained = _steps_of(learner, run.values["choices"]["algo"])
    keep_memory()
    rows = []
    for row in after_each(run, ladder(upto or max(LEAST, 2 * max(trained.values())))):
        rows.append(row)
        reached = spelled(learner.metric, row.value, row.value_interval)
        print(f"{row.steps:>5} steps   {reached}   loss {row.loss:.4f} ± {row.loss_interval:.4f}", flush=True)
    header = ["steps", learner.metric, f"{learner.metric}_interval", "loss", "loss_interval"]
    figure = draw(rows, trained, learner.metric, protocol(run))
    save(run.out, lambda path: figure.savefig(path, dpi=120, format="png"))
    write_table(run.out.with_suffix(".csv"), header, rows)
    print(run.out.with_suffix(".csv"))


def ladder(upto: int) -> list[int]:
    """Every number of steps to 10, then by about a fifth more, and `upto`."""
    steps = [*range(min(upto, 10) + 1)]
    while steps[-1] < upto:
        steps.append(min(upto, steps[-1] + steps[-1] // 5))
    return steps


def after_each(run: Finished, steps: Sequence[int]) -> Iterator[AfterSteps]:
    """What a test, or a validation, with so many inner steps reaches: the number that fsl test would."""
    from fsl_cli.stats import mean_interval
    from fsl_cli.training import new_trainer, tamed

    learner, episodes = run.experiment.learner, run.experiment.episodes
    algorithm: Any = learner.algorithm
    with tamed():
        trainer = new_trainer({**run.values["trainer"], "strategy": "auto", "devices": 1, "num_nodes": 1})
        for algorithm.test_steps in steps:
            evaluate = trainer.test if run.part == "test" else trainer.validate
            evaluate(learner, datamodule=episodes, verbose=False)
            value, loss = (mean_interval([row[column] for row in learner.scores]) for column in (1, 2))
            yield AfterSteps(algorithm.test_steps, *value, *loss)


def _steps_of(learner: Learner, name: str) -> dict[str, int]:
    """Inner steps in training, where there are any, and in tests. Raises UserError for what takes none."""
    algorithm: Any = learner.algorithm
    if not hasattr(algorithm, "test_steps"):
        raise UserError(
            f"algo={name} takes no gradient steps on a support set. fsl show steps is for those that do, such as "
            "algo=maml; for a metric method there is fsl show embedding."
        )
    training = {"in training": algorithm.inner_steps} if hasattr(algorithm, "inner_steps") else {}
    return {**training, "in a test": algorithm.test_steps}


def draw(rows: Sequence[AfterSteps], trained: dict[str, int], metric: str, title: str) -> Figure:
    """Accuracy, or the error, and the loss by inner step, with their intervals; lines where the run takes so many."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), layout="constrained")
    steps = [row.steps for row in rows]
    accuracy = metric == "accuracy"
    columns = [("value", "accuracy (%)" if accuracy else "mean squared error", 100 if accuracy else 1)]
    columns += [("loss", "loss", 1)] if accuracy else []  # a regression's loss is its error
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, (column, label, times) in zip(axes, columns, strict=True):
        values = [times * getattr(row, column) for row in rows]
        half = [times * getattr(row, f"{column}_interval") for row in rows]
        axis.plot(steps, values, "o-", markersize=3)
        low, high = zip(*((value - h, value + h) for value, h in zip(values, half, strict=True)), strict=True)
        axis.fill_between(steps, low, high, alpha=0.2)
        for (where, count), line in zip(trained.items(), ("--", ":"), strict=False):
            axis.axvline(count, color="black", linestyle=line, linewidth=1, label=f"{count} {where}")
        axis.set(xlabel="inner steps", ylabel=f"{label}, 95% interval")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend()
    figure.suptitle(title, fontsize=10)
    return figure
