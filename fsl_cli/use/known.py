"""What is known: pictures, texts or vectors from files, kept in a run's folder; and what a run learns from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fsl_cli.data import text_files
from fsl_cli.data.decode import Classes
from fsl_cli.data.embedding_files import find_embeddings
from fsl_cli.data.feature_files import Chosen as OfVectors
from fsl_cli.data.layouts import find
from fsl_cli.data.listed import Chosen
from fsl_cli.data.queries import queries
from fsl_cli.data.repeats import Places, repeat_warnings
from fsl_cli.data.text_files import as_file, find_texts
from fsl_cli.data.vector_files import known_vectors, vector_queries
from fsl_cli.episodes import IGNORED
from fsl_cli.errors import UserError
from fsl_cli.settings.registry import names
from fsl_cli.use.calibrated import OWN, fit
from fsl_cli.use.from_support import HOW, calibration_of
from fsl_cli.use.given_rows import demand_read, none_known, with_rows
from fsl_cli.use.kept_features import digests_of, items
from fsl_cli.use.predictor import FewShotClassifier, Predictor, taking_features
from fsl_cli.use.rounds import on_one_core
from fsl_cli.use.saved import UNLABELLED, Support, corrections, kept, text_corrections

WHAT = {"images": "picture", "texts": "text", "embeddings": "embedding"}  # is known
ENOUGH = 3  # pictures of each class, from which a set tells more of itself than validation does of another task


def support_of(run: Predictor, typed: dict[str, str], skipped: list[str]) -> Support:
    """The support set that is typed, or that the run keeps, with what is to be added or corrected. Raises UserError."""
    support = None
    demand_read(run, typed)
    if typed["support"]:
        support = read_support(run, typed["support"], typed["on_error"], skipped)
    elif typed["run"]:
        support = kept(Path(typed["run"]).expanduser())
    if typed.get("add"):
        more = read_support(run, typed["add"], typed["on_error"], skipped, "add")
        support = support.having(more) if support else more
    if typed.get("correct"):
        if run.image.items == "embeddings":
            raise UserError(
                f"correct={typed['correct']}: is for pictures and texts. Type add=FILE.npz with right labels."
            )
        corrected = text_corrections if run.image.items == "texts" else corrections
        right = _known(run, corrected(typed["correct"]), typed["on_error"], skipped)
        support = support.having(right) if support else right
    if typed.get("unlabelled"):
        more = _without_labels(run, typed["unlabelled"], typed["on_error"], skipped)
        support = support.having(more) if support else None
    if support is None and run.algorithm.zero_shot:
        support = none_known(run)
    if support is None:
        place = "FILE.npz" if run.image.items == "embeddings" else "FOLDER"
        raise UserError(f"Known {WHAT[run.image.items]}s are needed: type support={place} ({typed['run']} keeps none).")
    return with_rows(run, support, typed)


def read_support(run: Predictor, root: str, on_error: str, skipped: list[str], setting: str = "support") -> Support:
    """The support set at `root`, as `run` needs it, with class rows where there are any beside vectors.

    Raises UserError, which calls it by its `setting`.
    """
    skip = on_error == "skip"
    class_rows = dict[str, Any]()
    if run.image.items == "embeddings":
        vectors = find_embeddings(root, OfVectors(skip=skip), setting)
        width = vectors.features[0].shape[1]
        if width != run.image.channels:
            raise UserError(
                f"{setting}={root} has embeddings of {width:,} numbers, and {run.image.channels:,} are needed. "
                "Choose those that the same network has made."
            )
        lost, classes, class_rows = vectors.left_out, known_vectors(vectors), vectors.class_rows
    elif run.image.items == "texts":
        texts = find_texts(root, setting, text_files.Chosen(skip=skip))
        lost, groups = texts.left_out, texts.groups.values()
        classes = {name: [as_file(each) for each in own] for group in groups for name, own in group.items()}
    else:
        found = find(root, setting, Chosen(skip=skip))
        lost = found.left_out
        classes = {name: [each.file for each in own] for group in found.groups.values() for name, own in group.items()}
    for line in lost:
        print(f"{setting}: left out: {line}.")
    return _known(run, classes, on_error, skipped)._replace(class_rows=class_rows)


def learn(run: Predictor, support: Support, trust: Sequence[str] = ()) -> FewShotClassifier:
    """What `run` learns from a support set.

    Its temperature and its threshold are fitted on validation for such sets; where the run's data is not at hand, or
    nobody trained it, the set itself tells them.
    """
    counts = Counter(label for label in support.labels if label != UNLABELLED)
    shots = list(counts.values()) or [0] * len(support.class_rows)
    if len(shots) > 1:
        fit(run.run, len(shots), shots, trust)
    labels = [None if label == UNLABELLED else label for label in support.labels]
    classify = run.adapt_pixels(support.items, labels, support.class_rows)
    if run.algorithm.reads_class_rows:  # a head on some of the known items cannot be had without them
        return classify
    known = classify.support.y[0] != IGNORED
    y = classify.support.y[0, known]
    untrained = classify.calibration is None and not run.run.settings.steps
    of_another_task = classify.calibrated.startswith(OWN) and min(shots) >= ENOUGH
    if run.backbone and (untrained or of_another_task):
        with taking_features(run.backbone, True), on_one_core(y):
            found = calibration_of(run.algorithm, support.items.to(run.device)[known], y)
        if found:
            classify.take(found, HOW)
    return classify


def _without_labels(run: Predictor, words: str, on_error: str, skipped: list[str]) -> Support:
    """Pictures, or texts, whose classes nobody knows. Raises UserError, also where the method learns from none."""
    if not run.algorithm.takes_unlabelled:
        raise UserError(
            f"unlabelled={words}: algo={run.run.settings.algo_name} learns from known pictures alone. Leave it out, or "
            "choose a run of algo=softkmeans, which learns from both."
        )
    parts, lost = [words] if Path(words).expanduser().exists() else names(words), list[str]()
    if run.image.items == "texts":
        files = [as_file(each.text) for each in text_files.text_queries(parts, [], lost)]
    elif run.image.items == "embeddings":
        skip = on_error == "skip"
        files = [each.file for each in vector_queries(parts, [], run.image.channels, skip, lost, "unlabelled")]
    else:
        files = [each.file for each in queries(parts, [], lost, "unlabelled")]
    for line in lost:
        print(f"unlabelled: left out: {line}.")
    return _known(run, {UNLABELLED: files}, on_error, skipped)


def _known(run: Predictor, classes: Classes, on_error: str, skipped: list[str]) -> Support:
    digests = digests_of(classes)
    groups = defaultdict[str, Places](list)
    for name, files in classes.items():
        for file in files:
            groups[digests[file.name]].append((name, file.name))
    twice = (places for places in groups.values() if len(places) > 1)
    for line in repeat_warnings(twice, WHAT[run.image.items]):
        print(line)
    pieces = list(items(run, classes, digests, on_error, skipped))
    pictures = [picture for some, _ in pieces for picture in some]
    return Support(
        torch.cat([found for _, found in pieces]),
        [each.label for each in pictures],
        [each.file.name for each in pictures],
        [each.digest for each in pictures],
        {each.file.name: each.file for each in pictures},
    )
