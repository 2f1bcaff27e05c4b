"""fsl test: test a run again, with any way, shot, query, number of episodes or data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsl_cli.errors import UserError, command
from fsl_cli.settings.compose import compose
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.settings.registry import take_user_dir
from fsl_cli.settings.words import split_word, yes_or_no

if TYPE_CHECKING:
    from fsl_cli.experiment.assemble import Experiment

HELP = """Test a run's best checkpoint on its data set's test split, or on another's.

  fsl test run=outputs/RUN                             the run's own protocol
  fsl test run=outputs/RUN way=20 shot=5               any way and shot that the method allows
  fsl test run=outputs/RUN episodes=10000 query=5
  fsl test run=outputs/RUN data=omniglot data.root=DIR another data set
  fsl test run=outputs/RUN data=[cub,fc100]            several: each, and their mean
  fsl test run=outputs/RUN algo.test_steps=10          any setting of the run that keeps its weights
  fsl test run=outputs/RUN open=true                   and pictures of none of the classes, told from the others
  fsl test run=outputs/RUN attack=pgd attack.strength=0.1 attack.steps=20    and under attack: changed pixels
  fsl test run=outputs/RUN backbone.finetune=50       fine-tuned on each support set, at a rate chosen on validation
  fsl test run=outputs/RUN similarity=true             and how far each layer changes while it adapts (CKA)
  fsl test run=outputs/RUN classes=all                 all classes of the split at once, over draws of the support
  fsl test algo=protonet data=omniglot init=RUN        no training: with a backbone as it is, in a run of its own
  fsl test algo=simpleshot backbone=photos data=folder data.root=DIR classes=all     a folder's classes, all of them

Prints, for example:
  20-way 1-shot test accuracy  95.45% ± 0.16%
  calibration error 5.10% -> 0.82%, NLL 0.512 -> 0.351 (temperature 2.1, fitted on validation, 20w1s)
and writes result.json and episodes.csv (and similarity.json) to tests/NAME in the run's folder; where each class comes
in ten episodes or more on average, classes.csv, confusion.csv and confusion.png too."""


COMPARED = 100  # episodes at most for similarity=true


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl test`. Raises UserError."""
    user_dir, words = take_user_dir(words)
    given = dict(split_word(word) for word in words)
    if "run" not in given and "algo" not in given:
        near = did_you_mean(next(iter(given), ""), ["run"])
        raise UserError(f"Which run? Type fsl test run=FOLDER; every fsl train prints its folder.{near}")

    from fsl_cli.experiment.another_test import another_test
    from fsl_cli.experiment.running import start
    from fsl_cli.pictures.console import console, tell
    from fsl_cli.runs.records import UNFINISHED
    from fsl_cli.runs.result_lines import (
        attacked_line,
        calibration_line,
        classes_line,
        data_sets_lines,
        finetuned_line,
        instances_line,
        likelihood_line,
        memorisation_line,
        open_line,
        optimizers_lines,
        protocol_line,
        reached_line,
    )
    from fsl_cli.runs.run import Run

    if "run" not in given:
        start(compose([*words, "steps=0"], user_dir))
        return
    run = Run(given.pop("run"))
    opened = yes_or_no("open", given.pop("open", "false"))
    compare = yes_or_no("similarity", given.pop("similarity", "false"))
    result, destination, experiment = another_test(run, given, user_dir, opened, compare)
    console().print(f"[bold]{reached_line(result)}[/]\n{protocol_line(result)}", highlight=False)
    for line in filter(
        None,
        (
            *data_sets_lines(result),
            finetuned_line(result),
            calibration_line(result),
            classes_line(result),
            likelihood_line(result),
            instances_line(result),
            memorisation_line(result),
            *optimizers_lines(result.optimizers),
            attacked_line(result),
        ),
    ):
        console().print(line, highlight=False)
    if result.open:
        console().print(open_line(result.open), highlight=False)
    if UNFINISHED in result.changes:
        far = f"step {result.step} of {run.settings.steps}"
        line = f"not trained to its end: {far}; to go on: {command('fsl', 'train', f'resume={run}')}"
        tell(line)
    if compare:
        console().print(_compare(experiment, destination), highlight=False)
    tell(f"files  {destination}")


def _compare(experiment: Experiment, destination: Path) -> str:
    """similarity.json in the test's folder, and the same as a short table."""
    import torch

    from fsl_cli.data.tasks import Batch
    from fsl_cli.experiment.datamodule import EVALUATION_SEED
    from fsl_cli.experiment.similarity import similarity
    from fsl_cli.files import write_json

    count = min(COMPARED, experiment.episodes.episodes["test"])
    tasks, cpu = experiment.episodes.tasks, torch.device("cpu")
    episodes = (tasks.gather(Batch("test", EVALUATION_SEED, [index]), cpu)[0] for index in range(count))
    layers = similarity(experiment.learner.cpu().algorithm, episodes)
    write_json(
        destination / "similarity.json",
        {"measure": "linear CKA", "episodes": count, "layers": [layer._asdict() for layer in layers]},
    )
    rows = [f"  {row.layer:<10} {row.mean:.4f} ± {row.interval:.4f}" for row in layers]
    return "\n".join([f"similarity before and after adaptation (linear CKA, {count} episodes)", *rows])
