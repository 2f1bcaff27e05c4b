"""fsl embed: what a network makes of a data set, in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from fsl_cli.errors import UserError, command, shown
from fsl_cli.settings.registry import take_user_dir
from fsl_cli.settings.words import split_word

HELP = """Write the features that a network makes of a whole data set, with labels and splits: for data=embeddings.

  fsl embed run=outputs/RUN out=omniglot.npz                           with a run's backbone, on its own data set
  fsl embed run=outputs/RUN data=miniimagenet data.root=DIR out=mini.npz   on another one
  fsl embed backbone=photos data=folder data.root=DIR out=photos.npz   with a network that came trained, without a run
  fsl embed backbone=openclip backbone.tag=laion2b_s34b_b79k data=folder data.root=DIR out=clip.npz    with class rows
  fsl embed backbone=sentences data=texts data.root=FILE.csv out=texts.npz

The file has the arrays features (n, d), labels (n) and split (n), and about, what made it. A class that quarter turns
add is called NAME turned 90. A model with a text tower writes class_rows (classes, k) and class_names, too. Prints, for
example:
  omniglot.npz   32,460 embeddings of 64 numbers, of 1,623 classes   8.3 MB
  fsl test algo=simpleshot data=embeddings data.root=omniglot.npz"""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl embed`. Raises UserError."""
    user_dir, words = take_user_dir(words)
    given = dict(split_word(word, "out=FILE.npz") for word in words)
    if "out" not in given or not ("run" in given or {"backbone", "data"} <= given.keys()):
        raise UserError(
            "What shall be embedded, by what? Type fsl embed run=RUN out=FILE.npz, or "
            "fsl embed backbone=photos data=NAME out=FILE.npz."
        )
    out = Path(given.pop("out")).expanduser()
    if out.suffix.lower() != ".npz":
        npz = command(f"out={out.with_suffix('.npz')}")
        raise UserError(f"out={out}: the file is an npz. Type {npz}.")

    from fsl_cli.data.inspection import bytes_text
    from fsl_cli.experiment.allocator import keep_memory
    from fsl_cli.files import demand_writable, make_folder, writing
    from fsl_cli.use.embed import embedded, of_backbone, of_run, write

    advice = "Choose another with out=FILE.npz."
    demand_writable(out, advice)
    keep_memory()
    with redirect_stdout(sys.stderr):
        made = of_run(given, user_dir) if "run" in given else of_backbone(given, user_dir)
        found = embedded(made)
    with writing(out, advice):
        make_folder(out.parent)
        write(out, found)
    count, width = found.features.shape
    size = bytes_text(out.stat().st_size)
    rows = "" if found.class_rows is None else f", with class rows of {found.class_rows.shape[1]:,} numbers"
    classes = f"{len(set(found.labels)):,} classes"
    print(f"{shown(str(out))}   {count:,} embeddings of {width:,} numbers, of {classes}{rows}   {size}")
    print(
        command("fsl", "test", "algo=tipadapter" if rows else "algo=simpleshot", "data=embeddings", f"data.root={out}")
    )
