"""fsl distill: a few images or embeddings from which a kernel learns what it learns from a whole data set."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from fsl_cli.errors import UserError, command, shown
from fsl_cli.settings.registry import take_user_dir
from fsl_cli.settings.words import chosen_words, one_of, settings

if TYPE_CHECKING:
    from fsl_cli.use.distill import Distilled, Plan

HELP = """Distil a data set: a few images from which a kernel regression learns what it learns from all of them.

  fsl distill data=folder data.root=digits images=10 out=ten              images in all, as many of each class
  fsl distill data=miniimagenet split=test images=20 out=twenty           the classes of one split
  fsl distill data=omniglot classes='Greek/character01,Greek/character02' images=2 out=two
  fsl distill data=embeddings data.root=clip.npz images=100 out=hundred.npz
  fsl distill … holdout=0.33 steps=500 lr=0.04 layers=1 seed=0 --json

Kernel inducing points (Nguyen, Chen, Lee 2021): images begin as real ones and follow the gradient of the regression's
loss on the training images, as pixels that stay in 0..1. The kernel is that of an infinitely wide network with
`layers` hidden layers. A share of each class, holdout, is kept apart, and tells what has been learned.

Prints, for example:
  learned from             accuracy on 592 held out
  10 as they are           61.7% (57.7 to 65.5)
  10 with solved labels    81.9% (78.6 to 84.8)
  10 distilled             94.3% (92.1 to 95.9)
  all 1,205                98.8% (97.6 to 99.4)
and writes the images with a table for data=folder and predict, and a picture of them; of embeddings, an npz."""

DEFAULTS = {
    "images": "", "out": "", "split": "all", "classes": "", "holdout": "0.33", "steps": "500", "lr": "0.04",
    "layers": "1", "seed": "0",
}  # fmt: skip
EVERY = 100  # steps between two lines


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl distill`. Raises UserError."""
    user_dir, words = take_user_dir(words)
    chosen, others = chosen_words([word for word in words if word != "--json"], ("data",))
    typed = settings("distill", others, DEFAULTS)
    if not (chosen and typed["images"] and typed["out"]):
        raise UserError(
            "What shall be distilled, to how much, and where to? Type fsl distill data=folder data.root=FOLDER "
            "images=10 out=FOLDER. See fsl distill --help."
        )
    plan, out = _plan(typed), Path(typed["out"]).expanduser()
    advice = "Choose another with out=."

    from fsl_cli.files import demand_writable, writing
    from fsl_cli.use.distill import distil, read, write

    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"out={out}: there is something in this folder. {advice}")
    demand_writable(out / "1.png" if out.suffix != ".npz" else out, advice)
    with redirect_stdout(sys.stderr):  # a script reads standard output
        items = read(chosen, plan, user_dir)
        if (items.data.items == "embeddings") != (out.suffix == ".npz"):
            better = out.with_suffix(".npz") if items.data.items == "embeddings" else out.with_suffix("")
            what = "an npz" if items.data.items == "embeddings" else "a folder"
            raise UserError(f"out={out}: distilled {items.data.items} are {what}. Type {command(f'out={better}')}.")
        found = distil(items, plan, _told(plan.steps))
    with writing(out, advice):
        files = write(out, found)
    if "--json" in words:
        reached = [each._asdict() for each in found.reached]
        print(json.dumps({"held_out": len(items.held), "reached": reached, "files": list(map(str, files))}, indent=2))
    else:
        _show(found, files)


def _plan(typed: dict[str, str]) -> Plan:
    """The typed words as numbers. Raises UserError."""
    from fsl_cli.use.distill import Plan

    one_of("split", typed["split"], ("all", "train", "val", "test"))
    classes = [name.strip() for name in typed["classes"].split(",") if name.strip()]
    whole = {key: _number(key, typed[key], whole=True) for key in ("images", "steps", "layers", "seed")}
    if min(whole["images"], whole["steps"], whole["layers"]) < 1:
        raise UserError("images, steps and layers are at least 1.")
    holdout, lr = _number("holdout", typed["holdout"]), _number("lr", typed["lr"])
    if not 0 < holdout < 1:
        raise UserError(f"holdout={holdout:g}: type a share between 0 and 1, such as holdout=0.33.")
    if lr <= 0:
        raise UserError(f"lr={lr:g}: type a rate above 0, such as lr=0.04.")
    numbers = {key: int(value) for key, value in whole.items()}
    return Plan(
        numbers["images"], typed["split"], classes, holdout, numbers["layers"], numbers["steps"], lr, numbers["seed"]
    )


def _number(key: str, text: str, whole: bool = False) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or value >= 2**63:
        raise UserError(f"{key}={text}: type a {'whole ' if whole else ''}number, such as {key}={DEFAULTS[key] or 10}.")
    return value


def _told(steps: int) -> Callable[[int, float], None]:
    def told(step: int, loss: float) -> None:
        if step % EVERY == 0 or step == steps:
            print(f"step {step:>6} of {steps}   loss {loss:.4f}", flush=True)

    return told


def _show(found: Distilled, files: Sequence[Path]) -> None:
    from rich.table import Table

    from fsl_cli.pictures.console import console

    screen = console()
    count = len(found.items.held)
    table = Table("learned from", f"accuracy on {count:,} held out", box=None, pad_edge=False, padding=(0, 4, 0, 0))
    for each in found.reached:
        table.add_row(each.of, f"{each.accuracy:.1%} ({100 * each.low:.1f} to {100 * each.high:.1f})")
    screen.print(table)
    listed = "files  " + "\n       ".join(shown(str(file)) for file in files)
    screen.print(listed, highlight=False, soft_wrap=True, markup=False)
    name = "embeddings" if found.items.data.items == "embeddings" else "folder"
    print(command("fsl", "data", "info", name, f"root={files[0]}"))
