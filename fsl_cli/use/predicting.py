"""From a support set and a query set of files to predictions and the files that hold them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_cli.settings.registry import names

if TYPE_CHECKING:
    from torch import Tensor

    from fsl_cli.data.queries import Query
    from fsl_cli.use.kept_features import Picture
    from fsl_cli.use.predictions import Predictions
    from fsl_cli.use.predictor import FewShotClassifier, Predictor
    from fsl_cli.use.saved import Support


def predicted(
    run: Predictor, support: Support, classify: FewShotClassifier, typed: dict[str, str], html: bool, skipped: list[str]
) -> Predictions:
    """Read the pictures in pieces and predict; thumbnails are made of those that a page shows."""
    from fsl_cli.data.queries import queries
    from fsl_cli.data.vector_files import vector_queries
    from fsl_cli.episodes import IGNORED
    from fsl_cli.use.frozen import described
    from fsl_cli.use.kept_features import digests_of, items
    from fsl_cli.use.known import WHAT
    from fsl_cli.use.page import thumbnails
    from fsl_cli.use.predictions import Prediction, Predictions

    rate = None if typed["unknown"] == "off" else float(typed["unknown"])
    rate = _shown_rate(rate, classify)
    words = [typed["query"]] if Path(typed["query"]).expanduser().exists() else names(typed["query"])
    lost: list[str] = []
    texts, what = run.image.items == "texts", f"{WHAT[run.image.items]}s"
    if texts:
        found_queries = _texts(words, classify.classes, lost)
    elif run.image.items == "embeddings":
        skip = typed["on_error"] == "skip"
        found_queries = vector_queries(words, classify.classes, run.image.channels, skip, lost)
    else:
        found_queries = queries(words, classify.classes, lost)
    asked = {query.file.name: query for query in found_queries}
    for line in lost:
        print(f"query: left out: {line}.")
    rows, files = [], {"query": [query.file for query in asked.values()]}
    digests = digests_of(files)
    _tell_copies(support, digests, what)
    pieces = items(run, files, digests, typed["on_error"], skipped)
    for pictures, found in _whole(pieces) if classify.together else pieces:
        shares, unknown = classify.judged(found, rate)
        near = [("", "")] * len(pictures)
        if html:
            pairs = classify.nearest(found, shares.argmax(-1).tolist())
            near = [(support.files[nearest], support.files[own]) for nearest, own in pairs]
        for picture, row, places, judged in zip(pictures, shares.tolist(), near, unknown, strict=True):
            name = picture.file.name
            rows.append(Prediction(name, row, asked[name].label, asked[name].told, *places, *judged))
    numbered = zip(support.files, classify.support.y[0].tolist(), strict=True)
    of_support = {file: number for file, number in numbered if number != IGNORED}
    algorithm, how = run.run.settings.algo_name, (classify.temperature, classify.calibrated, rate)
    used = typed["run"] or described(run)
    predictions = Predictions(used, algorithm, classify.classes, of_support, rows, skipped, {}, *how, items=what)
    read = {**support.sources, **{name: query.file for name, query in asked.items()}}
    if texts:
        return predictions._replace(
            texts={name: bytes(file.read()).decode("utf-8", "surrogatepass") for name, file in read.items()}
        )
    return predictions._replace(thumbnails=thumbnails(predictions, read)) if html else predictions


def _whole(pieces: Iterable[tuple[list[Picture], Tensor]]) -> list[tuple[list[Picture], Tensor]]:
    """All pieces as one, for a method that looks at all queries together."""
    import torch

    pictures, found = zip(*pieces, strict=True)
    print("Each prediction depends on the other new ones: the method looks at all of them.", file=sys.stderr)
    return [([picture for some in pictures for picture in some], torch.cat(found))]


def _texts(words: list[str], classes: list[Any], lost: list[str]) -> list[Query]:
    """The texts that these words name, each in the place of a file."""
    from fsl_cli.data.queries import Query
    from fsl_cli.data.text_files import as_file, text_queries

    return [Query(as_file(each.text), each.label, each.told) for each in text_queries(words, classes, lost)]


def _shown_rate(rate: float | None, classify: FewShotClassifier) -> float | None:
    """The share of false alarms that is asked for, or the smallest that can be shown; None where nothing can."""
    if rate is None or not classify.tells_unknown:
        return None
    fewest = classify.fewest_alarms
    if rate < fewest:
        few = f"{round(1 / fewest) - 1} known pictures, each judged by the others, cannot show fewer false alarms than"
        print(f"unknown={rate:g}: {few} {fewest:.1%}.", file=sys.stderr)
    return max(rate, fewest)


def _tell_copies(support: Support, digests: dict[str, str], what: str) -> None:
    """Say which new ones, by name and content, are of the support set, whatever they are called."""
    from fsl_cli.errors import shown

    known = dict(zip(support.digests, support.files, strict=True))
    of_support = {name: known[digest] for name, digest in digests.items() if digest in known}
    if of_support:
        first = min(of_support)
        same = "" if of_support[first] == first else f", which is the same as {shown(of_support[first])}"
        some = (
            f"{len(of_support):,} of the {len(digests):,} new {what} are of the support set, "
            f"such as {shown(first)}{same}"
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
    columns = ["file", "text"] if found.texts else ["file"]
    header = [*columns, "label", *found.classes, *unknown, *(["true"] if labelled else []), "doubt", "why"]
    rows: list[list[Any]] = [[*found.named(row), found.answer(row), *row.probabilities] for row in found.rows]
    for cells, row in zip(rows, found.rows, strict=True):
        cells += [row.unknown] if unknown else []
        cells += [row.true] if labelled else []
        cells += [found.doubt(row), found.why(row)]
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
