"""fsl predict: a run learns classes from known pictures and classifies new ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from fsl_cli.commands.words import one_of, settings, yes_or_no
from fsl_cli.config import names
from fsl_cli.errors import UserError

if TYPE_CHECKING:
    from fsl_cli.commands.predictions import Predictions
    from fsl_cli.data.decode import File
    from fsl_cli.predictor import FewShotClassifier, Run

HELP = """Let a finished run learn classes from a few known pictures and classify new ones.

  fsl predict run=outputs/RUN support=photos/known query=photos/new
  fsl predict run=outputs/RUN support=known.csv query='new/*.jpg'    a CSV file,label; single files: query=a.jpg,b.png
  fsl predict run=outputs/RUN support=known.zip query=new.zip        zips, read without unpacking
  fsl predict … html=true                                            a page with the pictures, to look through
  fsl predict … out=FOLDER on_error=skip                             another folder; leave out unreadable pictures
  fsl predict … --json                                               for scripts

support: a folder for each class (or a CSV, or a zip of either), any number of pictures in each, of any size and kind.
query: sub-folders, or a column label, that name classes tell how many predictions are right.
Neither the data that the run was trained on nor a GPU is needed.

Prints, for example:
  file                     label      next
  photos/new/ash/1.jpg     ash 98.1%  oak 1.2%
  …
  accuracy 93.33%, 28 of 30 pictures whose class is known
and writes predictions.csv (file, label, probability of each class), predictions.html and confusion.png."""

DEFAULTS = {
    "run": "",
    "support": "",
    "query": "",
    "out": "predictions",
    "html": "false",
    "on_error": "stop",
    "trust": "",
}
PICTURED = 2000  # pictures on a page at most


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl predict`. Raises UserError."""
    typed = settings("predict", [word for word in words if word != "--json"], DEFAULTS)
    for key, needed in (("run", "FOLDER"), ("support", "FOLDER, with a folder for each class"), ("query", "FOLDER")):
        if not typed[key]:
            raise UserError(f"fsl predict needs {key}=: type {key}={needed}. See fsl predict --help.")
    one_of("on_error", typed["on_error"], ("stop", "skip"))
    html = yes_or_no("html", typed["html"])

    from fsl_cli.commands.predictions import as_json, show
    from fsl_cli.predictor import load_run
    from fsl_cli.results import writing

    with redirect_stdout(sys.stderr):  # a script reads standard output
        run = load_run(typed["run"], names(typed["trust"]))
        if run.changed:
            print("norm=transductive: used with norm=support, as no prediction may depend on the other new pictures.")
        found = _predicted(run, typed, html)
    with writing(typed["out"], "Choose another folder with out=FOLDER."):
        files = _write(Path(typed["out"]).expanduser(), found, html)
    if "--json" in words:
        print(json.dumps({"run": typed["run"], **as_json(found), "files": list(map(str, files))}, indent=2))
    else:
        show(found, files)


def read_support(run: Run, root: str, on_error: str, skipped: list[str]) -> tuple[FewShotClassifier, list[File]]:
    """What `run` learns from the support set at `root`, and the files of its pictures. Raises UserError."""
    import numpy as np
    import torch

    from fsl_cli.data.layouts import find
    from fsl_cli.data.photos import photos

    groups = find(root, "support").groups.values()
    classes = {name: [each.file for each in pictures] for group in groups for name, pictures in group.items()}
    labels: list[str] = []
    files: list[File] = []
    pixels = []
    for pairs, images in photos(classes, run.image["size"], run.image["channels"], on_error, skipped):
        labels += [label for label, _ in pairs]
        files += [file for _, file in pairs]
        pixels.append(images)
    return run.adapt_pixels(torch.from_numpy(np.concatenate(pixels)), labels), files


def _predicted(run: Run, typed: dict[str, str], html: bool) -> Predictions:
    """Read the pictures in pieces and predict; thumbnails are made on the way."""
    import torch

    from fsl_cli.commands.prediction_page import thumbnail
    from fsl_cli.commands.predictions import Prediction, Predictions
    from fsl_cli.data.photos import photos
    from fsl_cli.data.queries import queries

    skipped: list[str] = []
    classify, known = read_support(run, typed["support"], typed["on_error"], skipped)
    words = [typed["query"]] if Path(typed["query"]).expanduser().exists() else names(typed["query"])
    asked = {query.file.name: query for query in queries(words, classify.classes)}
    if both := asked.keys() & {file.name for file in known}:
        some = f"{len(both):,} of the {len(asked):,} new pictures are of the support set, such as {min(both)}"
        print(f"{some}: no measure of what was learned.", file=sys.stderr)
    shown = set(list(asked)[:PICTURED]) if html else set()
    thumbnails: dict[str, str] = {}

    def look(file: File) -> None:
        if file.name in shown:
            thumbnails[file.name] = thumbnail(file)

    rows, files = [], {"query": [query.file for query in asked.values()]}
    for pairs, images in photos(files, run.image["size"], run.image["channels"], typed["on_error"], skipped, look):
        pixels = torch.from_numpy(images)
        nearest = [known[i].name for i in classify.nearest(pixels)] if html else [""] * len(pairs)
        for (_, file), row, near in zip(pairs, classify.of_pixels(pixels).tolist(), nearest, strict=True):
            rows.append(Prediction(file.name, row, asked[file.name].label, asked[file.name].told, near))
    of_support = dict(zip((file.name for file in known), classify.support.y[0].tolist(), strict=True))
    neighbours = {row.nearest for row in rows if row.file in thumbnails}
    thumbnails |= {file.name: thumbnail(file) for file in known if file.name in neighbours}
    return Predictions(typed["run"], run.choices["algo"], classify.classes, of_support, rows, skipped, thumbnails)


def _write(out: Path, found: Predictions, html: bool) -> list[Path]:
    """predictions.csv, confusion.png where labels are known and predictions.html where asked for; no other remains."""
    from fsl_cli.commands.prediction_page import confusion_picture, page
    from fsl_cli.results import make_folder, whole, write_table, write_text

    make_folder(out)
    files = [out / name for name in ("predictions.csv", "confusion.png", "predictions.html")]
    labelled = any(row.true for row in found.rows)
    header = ["file", "label", *found.classes, *(["true"] if labelled else [])]
    rows = ([row.file, found.label(row), *row.probabilities, *([row.true] if labelled else [])] for row in found.rows)
    write_table(files[0], header, rows)
    for path, wanted in zip(files[1:], (labelled, html), strict=True):
        if not wanted:  # of an earlier prediction
            path.unlink(missing_ok=True)
    if labelled:
        with whole(files[1]) as temporary:
            confusion_picture(found, temporary)
    if html:
        write_text(files[2], page(found, files[1] if labelled else None))
    return [path for path, wanted in zip(files, (True, labelled, html), strict=True) if wanted]
