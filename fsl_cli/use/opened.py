"""Opening a run for `fsl show`: its weights, its test or validation episodes, its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fsl_cli.errors import UserError, command
from fsl_cli.runs.run import Run

if TYPE_CHECKING:
    from fsl_cli.experiment.assemble import Experiment
    from fsl_cli.settings.schema import Settings

PARTS = ("test", "val")


class Finished(NamedTuple):
    settings: Settings  # the run's, with what was typed in place of its own
    experiment: Experiment  # with the weights of the best checkpoint, in evaluation mode, on the CPU
    part: str  # whose episodes: test or val
    out: Path  # the picture


def words_of_a_run(verb: str, words: Sequence[str]) -> dict[str, str]:
    """The words of a command line that names a run, by their key. Raises UserError where it names none."""
    from fsl_cli.settings.words import split_word

    given = dict(split_word(word) for word in words)
    if "run" not in given:
        raise UserError(f"Which run? Type {verb} run=FOLDER; every fsl train prints its folder.")
    return given


def number(given: dict[str, str], key: str, usual: int, least: int) -> int:
    """Take a whole number out of `given`. Raises UserError when it is none, or below the least."""
    text = given.pop(key, str(usual))
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{key}={text}: must be a whole number of at least {least}.")
    return int(text)


def open_run(given: dict[str, str], picture: str, user_dir: str | None) -> Finished:
    """The run that `given` names, under its own test protocol but for the settings that `given` changes.

    Takes `run`, `split` and `out`; without `out` the picture lies in the run's folder, below shown/, under a name for
    the protocol. Raises UserError when the run cannot be tested so.
    """
    from fsl_cli.experiment.assemble import assemble
    from fsl_cli.experiment.finetuning import fine_tuning_of
    from fsl_cli.experiment.testing import refuse_seen_classes
    from fsl_cli.files import demand_writable
    from fsl_cli.runs.checkpoints import load_weights
    from fsl_cli.runs.retest import settings_of_a_test, test_name
    from fsl_cli.settings.binding import demand_one

    run, part, out = Run(given.pop("run")), given.pop("split", "test"), given.pop("out", None)
    if part not in PARTS:
        raise UserError(f"split={part}: type {' or '.join(f'split={each}' for each in PARTS)}.")
    settings = settings_of_a_test(run, given, user_dir)
    demand_one(settings.data)
    if any(key.partition(".")[0] == "attack" for key in given):
        raise UserError(
            "attack: a picture shows the images as they are. Leave it out, or type "
            f"{command('fsl', 'test', f'run={run}', *(f'{key}={value}' for key, value in given.items()))}."
        )
    if "episodes" in given:
        settings = settings.having(val_episodes=settings.episodes)
    name = test_name(settings, given) + ("-val" if part == "val" else "")
    path = Path(out).expanduser() if out else run.folder / "shown" / name / f"{picture}.png"
    if path.suffix.lower() != ".png":
        png = command(f"out={path.with_suffix('.png')}")
        raise UserError(f"out={out}: the picture is a PNG. Type {png}.")
    demand_writable(path, "Choose another with out=FILE.png.")
    # before a validation an algorithm may look at training episodes
    experiment = assemble(settings, ["test"] if part == "test" else ["train", "val"])
    if part == "test":
        refuse_seen_classes(run, experiment.data)
    load_weights(run.best, experiment.learner)
    if settings.finetune:
        if "backbone.finetune" in given:
            raise UserError(
                "backbone.finetune: a picture shows the network as it was trained, or as the run's own test "
                "fine-tuned it. Leave it out."
            )
        experiment.learner.finetuning = fine_tuning_of(run)
    experiment.learner.eval()
    return Finished(settings, experiment, part, path)


def demand_index(run: Finished, index: int) -> None:
    """Raises UserError when the run's test, or its validation, has no episode of this number."""
    count = run.experiment.episodes.episodes[run.part]
    if index >= count:
        raise UserError(
            f"index={index}: the run's {run.part} episodes are 0 to {count - 1}. "
            f"Type one of these, or episodes={index + 1} for more."
        )


def save(out: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make the picture, whole or not at all, show it in a terminal that can, and print its path."""
    from fsl_cli.files import replacing, writing
    from fsl_cli.pictures.terminal import inline

    with writing(out, "Choose another with out=FILE.png."):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            write(temporary)
    inline(out)
    print(out)


def protocol(run: Finished) -> str:
    """maml on glyphs, 5-way 1-shot, test: what a picture is of, for its title."""
    from fsl_cli.runs.wording import task_words

    words = task_words(run.settings.way, run.settings.shot, run.experiment.learner.metric)
    return f"{run.settings.algo_name} on {run.experiment.data.name}, {words}, {run.part}"
