"""fsl try: which head on a frozen network suits these pictures, and how far to believe it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from fsl_cli.errors import UserError
from fsl_cli.settings.words import chosen_words, one_of, settings

if TYPE_CHECKING:
    from fsl_cli.use.trying import Trial

HELP = """Try every head that runs on a frozen network on a few pictures of each class, in seconds; nothing is trained.

  fsl try support=photos/known
  fsl try support=known.csv                       a CSV file,label; a zip
  fsl try support=photos/known backbone=timm backbone.name=vit_small_patch14_dinov2 backbone.weights=FILE
  fsl try support=photos/known time=10m           and ten minutes of meta-training on these classes, for comparison
  fsl try … out=FOLDER on_error=skip --json

Each picture is judged by a head that has not seen it, among all classes at once. Accuracy with its 95% interval; the
calibration error, by how much probabilities are off; strangers, the share of pictures of unknown classes that are
called unknown when 5% of the known ones are.

Prints, for example:
  head          accuracy              calibration  strangers  seconds
  SVM           91.0% (88.2 to 93.2)         2.1%        55%      4.0
  …
  recommended: nearest mean
and writes try.json and confused.png, the classes that are confused most."""

DEFAULTS = {"support": "", "out": "try", "time": "", "on_error": "stop"}


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl try`. Raises UserError."""
    chosen, others = chosen_words([word for word in words if word != "--json"], ("backbone",))
    typed = settings("try", others, DEFAULTS)
    if not typed["support"]:
        raise UserError(
            "fsl try needs pictures: type support=FOLDER, with a folder for each class. See fsl try --help."
        )
    one_of("on_error", typed["on_error"], ("stop", "skip"))

    from fsl_cli.experiment.allocator import keep_memory
    from fsl_cli.files import writing
    from fsl_cli.use.trying import as_json, try_out, write

    keep_memory()
    with redirect_stdout(sys.stderr):  # a script reads standard output
        trial = try_out(typed["support"], chosen, typed["on_error"], typed["time"], typed["out"])
    with writing(typed["out"], "Choose another folder with out=FOLDER."):
        files = write(Path(typed["out"]).expanduser(), trial)
    if "--json" in words:
        print(json.dumps({**as_json(trial), "files": list(map(str, files))}, indent=2))
    else:
        _show(trial, files)


def _show(trial: Trial, files: Sequence[Path]) -> None:
    """The table of heads, the one to take, what is confused, whether training would pay, and the next command."""
    from rich.table import Table

    from fsl_cli.pictures.console import console

    screen = console()
    screen.print(trial.about, highlight=False, soft_wrap=True, markup=False)
    table = Table("head", "accuracy", "calibration", "strangers", "seconds", box=None, pad_edge=False)
    for each in trial.tried:
        style = "bold" if each.head == trial.recommended.head else ""
        interval = f"({100 * each.low:.1f} to {100 * each.high:.1f})"
        cells = f"{each.calibration_error:.1%}", f"{each.caught:.0%}", f"{each.seconds:.1f}"
        table.add_row(each.head, f"{each.accuracy:.1%} {interval}", *cells, style=style)
    screen.print(table)
    for line in trial.advice:
        screen.print(line, highlight=False, soft_wrap=True, markup=False)
    screen.print("files  " + "\n       ".join(map(str, files)), highlight=False, soft_wrap=True, markup=False)
