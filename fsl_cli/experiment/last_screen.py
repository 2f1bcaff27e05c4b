"""The last screen of a run: what was reached, under which protocol, where it lies, what to type next."""

from __future__ import annotations

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.data.feasible import shape_problems
from fsl_cli.data.store import DataSet
from fsl_cli.errors import command
from fsl_cli.experiment.assemble import Data
from fsl_cli.experiment.shapes import evaluated
from fsl_cli.pictures.console import boxed, tell
from fsl_cli.runs.result_lines import (
    attacked_line,
    best_line,
    calibration_line,
    classes_line,
    data_sets_lines,
    finetuned_line,
    inner_problem_line,
    instances_line,
    labels_line,
    likelihood_line,
    memorisation_line,
    optimizers_lines,
    protocol_line,
    reached_line,
)
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import class_of
from fsl_cli.settings.schema import Settings


def last_screen(run: Run, settings: Settings, data: Data) -> None:
    """What was reached, under which protocol, where it lies and what to type next."""
    training = run.training
    assert training  # is over
    seconds = training.seconds
    took = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    step = f"step {training.best_step} of {training.steps}"
    found = f"best validation {best_line(training)} at {step}"
    if settings.train_on == "trainval":
        found = f"trained on the validation classes too, so {step} is kept"
    lines = [f"{found}, trained for {took}"] if training.steps else []
    other = "episodes=10000"
    if settings.test:
        result = run.result
        assert result
        lines = [
            f"[bold]{reached_line(result)}[/]",
            *data_sets_lines(result),
            protocol_line(result),
            labels_line(result),
            finetuned_line(result),
            calibration_line(result),
            classes_line(result),
            memorisation_line(result),
            attacked_line(result),
            likelihood_line(result),
            instances_line(result),
            inner_problem_line(result),
            *optimizers_lines(result.optimizers),
            *lines,
        ]
        lines = [line for line in lines if line]
        if isinstance(data, DataSet) and class_of(settings.algo, Algorithm).any_shot:
            shot = 5 if result.shot == 1 else 1
            if result.shot and not shape_problems(data, {"test": evaluated(settings)._replace(shot=shot)}):
                other = f"shot={shot}"
    boxed(lines)
    tell(f"files  {run}")  # outside the frame: whole lines to copy
    tell(f"next   {command('fsl', 'test', f'run={run}', other)}")
