"""The last screen of a run: what was reached, under which protocol, where it lies, what to type next."""

from __future__ import annotations

from rich.panel import Panel

from fsl_cli.pictures.console import console
from fsl_cli.runs.records import Result, Training
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import score_text, task_words


def protocol_line(result: Result) -> str:
    """What an accuracy was reached under, in one line."""
    elsewhere = f"trained on {result.trained_on}, " if result.trained_on != result.data else ""
    if result.metric == "mse":
        return f"{elsewhere}{result.data} {result.split}, {result.query} queries, {result.episodes} tasks"
    queries = "1 query" if result.query == 1 else f"{result.query} queries"
    sampling = f"classes drawn {result.sampling}, " if result.sampling != "uniform" else ""
    return (
        f"{elsewhere}{result.data} {result.split} split ({result.split_hash}), "
        f"rotations={result.rotations}, {sampling}{queries} a class, {result.episodes} episodes, "
        f"{result.inference} (norm={result.norm}){_weights(result)}"
    )


def _weights(result: Result) -> str:
    """What the backbone had seen before, which is no measure of new classes where the test's were among it."""
    if not result.pretrained:
        return ""
    known = {"yes": ", which HAS SEEN these classes", "maybe": ", which may have seen these classes"}
    return f", on weights from {result.pretrained}{known.get(result.seen, '')}"


def reached_line(result: Result) -> str:
    """The number itself."""
    measure = "accuracy" if result.metric == "accuracy" else "error"
    reached = score_text(result.metric, result.mean, result.interval)
    return f"{task_words(result.way, result.shot, result.metric)} {result.part} {measure}  {reached}"


def last_screen(run: Run, tested: bool) -> None:
    """What was reached, under which protocol, where it lies and what to type next."""
    training = run.training
    assert training  # is over
    seconds = training.seconds
    took = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    step = f"step {training.best_step} of {training.steps}"
    lines = [f"best validation {best_line(training)} at {step}, trained for {took}"]
    other = "episodes=10000"
    if tested:
        result = run.result
        assert result
        lines = [f"[bold]{reached_line(result)}[/]", protocol_line(result), *lines]
        if result.metric == "accuracy":
            other = "shot=5" if result.shot == 1 else "shot=1"
    console().print(Panel("\n".join(lines), expand=False), highlight=False)
    paths = f"files  {run}\nnext   fsl test run={run} {other}"  # outside the panel: whole lines to copy
    console().print(paths, highlight=False, soft_wrap=True)


def best_line(training: Training) -> str:
    """accuracy 97.57%, or MSE 0.351: the best validation."""
    value = training.best_value
    return f"accuracy {value:.2%}" if training.metric == "accuracy" else f"MSE {value:.3f}"
