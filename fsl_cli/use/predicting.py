"""From a support set and a query set of files to predictions and the files that hold them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_cli.settings.compose import names

if TYPE_CHECKING:
    from fsl_cli.data.decode import File
    from fsl_cli.use.predictions import Predictions
    from fsl_cli.use.predictor import FewShotClassifier, Predictor


PICTURED = 2000  # pictures on a page at most


def read_support(
    run: Predictor, root: str, on_error: str, skipped: list[str], trust: Sequence[str] = ()
) -> tuple[FewShotClassifier, list[File]]:
    """What `run` learns from the support set at `root`, and the files of its pictures. Raises UserError."""
    import numpy as np
    import torch

    from fsl_cli.data.layouts import find
    from fsl_cli.data.listed import Chosen
    from fsl_cli.data.photos import photos
    from fsl_cli.use.calibrated import fit

    found = find(root, "support", Chosen(skip=on_error == "skip"))
    for line in found.left_out:
        print(f"support: left out: {line}.")
    groups = found.groups.values()
    classes = {name: [each.file for each in pictures] for group in groups for name, pictures in group.items()}
    labels: list[str] = []
    files: list[File] = []
    pixels = []
    for pairs, images in photos(classes, run.image.size, run.image.channels, on_error, skipped):
        labels += [label for label, _ in pairs]
        files += [file for _, file in pairs]
        pixels.append(images)
    counts = Counter(labels)
    if len(counts) > 1:
        fit(run.run, len(counts), list(counts.values()), trust)
    return run.adapt_pixels(torch.from_numpy(np.concatenate(pixels)), labels), files


def predicted(run: Predictor, typed: dict[str, str], html: bool) -> Predictions:
    """Read the pictures in pieces and predict; thumbnails are made on the way."""
    import torch

    from fsl_cli.data.photos import photos
    from fsl_cli.data.queries import queries
    from fsl_cli.use.page import thumbnail
    from fsl_cli.use.predictions import Prediction, Predictions

    skipped: list[str] = []
    rate = None if typed["unknown"] == "off" else float(typed["unknown"])
    classify, known = read_support(run, typed["support"], typed["on_error"], skipped, names(typed["trust"]))
    words = [typed["query"]] if Path(typed["query"]).expanduser().exists() else names(typed["query"])
    lost: list[str] = []
    asked = {query.file.name: query for query in queries(words, classify.classes, lost)}
    for line in lost:
        print(f"query: left out: {line}.")
    _tell_copies(known, [query.file for query in asked.values()])
    shown = set(list(asked)[:PICTURED]) if html else set()
    thumbnails: dict[str, str] = {}

    def look(file: File) -> None:
        if file.name in shown:
            thumbnails[file.name] = thumbnail(file)

    rows, files = [], {"query": [query.file for query in asked.values()]}
    for pairs, images in photos(files, run.image.size, run.image.channels, typed["on_error"], skipped, look):
        pixels = torch.from_numpy(images)
        nearest = [known[i].name for i in classify.nearest(pixels)] if html else [""] * len(pairs)
        shares, unknown = classify.judged(pixels, rate)
        for (_, file), row, near, own in zip(pairs, shares.tolist(), nearest, unknown, strict=True):
            rows.append(Prediction(file.name, row, asked[file.name].label, asked[file.name].told, near, *own))
    of_support = dict(zip((file.name for file in known), classify.support.y[0].tolist(), strict=True))
    neighbours = {row.nearest for row in rows if row.file in thumbnails}
    thumbnails |= {file.name: thumbnail(file) for file in known if file.name in neighbours}
    rate = rate if classify.tells_unknown else None
    algorithm, how = run.run.settings.choices["algo"], (classify.temperature, classify.calibrated, rate)
    return Predictions(typed["run"], algorithm, classify.classes, of_support, rows, skipped, thumbnails, *how)


def _tell_copies(known: list[File], new: list[File]) -> None:
    """Say which new pictures are of the support set, whatever they are called."""
    from fsl_cli.data.repeats import same_files
    from fsl_cli.text import shown

    of_support: dict[str, str] = {}
    for group in same_files({"support": known, "query": new}):
        known_as = [name for place, name in group if place == "support"]
        of_support |= {name: known_as[0] for place, name in group if place == "query" and known_as}
    if of_support:
        first = min(of_support)
        same = "" if of_support[first] == first else f", which is the same as {shown(of_support[first])}"
        some = (
            f"{len(of_support):,} of the {len(new):,} new pictures are of the support set, such as {shown(first)}{same}"
        )
        print(f"{some}: no measure of what was learned.", file=sys.stderr)


def write(out: Path, found: Predictions, html: bool) -> list[Path]:
    """predictions.csv, confusion.png where labels are known and predictions.html where asked for; no other remains."""
    from fsl_cli.files import make_folder, replacing, write_table, write_text
    from fsl_cli.pictures.confusion import confusion_picture
    from fsl_cli.use.page import page

    make_folder(out)
    files = [out / name for name in ("predictions.csv", "confusion.png", "predictions.html")]
    labelled = any(row.true for row in found.rows)
    unknown = [found.no_class] if found.rate is not None else []
    header = ["file", "label", *found.classes, *unknown, *(["true"] if labelled else [])]
    rows: list[list[Any]] = [[row.file, found.answer(row), *row.probabilities] for row in found.rows]
    for cells, row in zip(rows, found.rows, strict=True):
        cells += [row.unknown] if unknown else []
        cells += [row.true] if labelled else []
    write_table(files[0], header, rows)
    for path, wanted in zip(files[1:], (labelled, html), strict=True):
        if not wanted:  # of an earlier prediction
            path.unlink(missing_ok=True)
    if labelled:
        with replacing(files[1]) as temporary:
            confusion_picture(found.confusion(), found.classes, temporary)
    if html:
        write_text(files[2], page(found, files[1] if labelled else None))
    return [path for path, wanted in zip(files, (True, labelled, html), strict=True) if wanted]
