"""`fsl try`: from a support set of files to what each head is worth, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fsl_cli.errors import UserError, command
from fsl_cli.files import make_folder, replacing, write_json
from fsl_cli.pictures.confused import confused_picture
from fsl_cli.use.frozen import described, frozen_predictor
from fsl_cli.use.heads import Tried, confusions, recommended, try_heads
from fsl_cli.use.known import read_support
from fsl_cli.use.meta_trained import Trained, meta_trained

CONFUSED = 5  # pairs that are told
TRAINABLE = 30, 10  # classes, and pictures of each, from which meta-training may learn something


class Trial(NamedTuple):
    """What came out."""

    about: str  # what was tried, and on what
    classes: list[str]
    tried: list[Tried]  # the best first
    recommended: Tried
    trained: Trained | None  # what ten minutes of meta-training reach, if they were asked for
    advice: list[str]
    features: Any  # (n, d), NumPy
    labels: Any  # (n,) numbers of classes


def try_out(root: str, chosen: Sequence[str], on_error: str, budget: str, out: str) -> Trial:
    """Try all heads on the support set at `root`, on the backbone that the `chosen` words name.

    With a `budget` such as 10m, meta-training on these classes too, in a run below `out`. Raises UserError.
    """
    seconds = _seconds(budget)
    predictor = frozen_predictor(chosen)
    support = read_support(predictor, root, on_error, [])
    features, classes = support.items, sorted(set(support.labels))
    number = {name: i for i, name in enumerate(classes)}
    y = torch.tensor([number[label] for label in support.labels])
    tried = try_heads(features, y)
    best = recommended(tried)
    trained = meta_trained(root, seconds, Path(out).expanduser(), chosen) if seconds else None
    about = f"{len(y):,} pictures of {len(classes):,} classes, {described(predictor)}"
    advice = _advice(root, chosen, tried, classes, y.bincount().tolist(), trained)
    return Trial(about, classes, tried, best, trained, advice, features.numpy(), y.numpy())


def write(out: Path, trial: Trial) -> list[Path]:
    """try.json, and confused.png where something is confused; no other remains."""
    make_folder(out)
    files = [out / "try.json", out / "confused.png"]
    write_json(files[0], as_json(trial))
    if not confusions(trial.recommended.confusion, trial.classes, 1):
        files.pop().unlink(missing_ok=True)
        return files
    with replacing(files[1]) as temporary:
        confused_picture(trial.recommended.confusion, trial.classes, trial.features, trial.labels, temporary)
    return files


def as_json(trial: Trial) -> dict[str, Any]:
    """The trial as JSON, for a script."""
    columns = ("head", "accuracy", "low", "high", "calibration_error", "temperature", "caught", "auroc", "seconds")
    return {
        "about": trial.about,
        "classes": trial.classes,
        "pictures": len(trial.labels),
        "judged": len(trial.recommended.right),
        "heads": [
            {**{name: getattr(each, name) for name in columns}, "words": list(each.words)} for each in trial.tried
        ],
        "recommended": trial.recommended.head,
        "confused": [list(pair) for pair in confusions(trial.recommended.confusion, trial.classes, CONFUSED)],
        "trained": trial.trained and trial.trained._asdict(),
    }


def _advice(
    root: str, chosen: Sequence[str], tried: list[Tried], classes: list[str], counts: list[int], trained: Trained | None
) -> list[str]:
    best = recommended(tried)
    predict = command("fsl", "predict", f"support={root}", "query=NEW", *chosen, *best.words)
    lines = [f"recommended: {best.head}", f"  {predict}"]
    if pairs := confusions(best.confusion, classes, CONFUSED):
        often = ((one, other, f"{count} times" if count > 1 else "once") for one, other, count in pairs)
        said = "; ".join(f"{one} and {other} {times}" for one, other, times in often)
        lines.append(f"confused most: {said}")
    if "SVM" not in {each.head for each in tried}:
        lines.append("SVM was left out: with so many pictures and classes it takes minutes")
    if trained:
        return [*lines, *trained.lines()]
    many, each = TRAINABLE
    enough = sum(count >= each for count in counts) >= many
    pays = (
        "Meta-training on these classes may pay where they look unlike photographs (drawings, scans, microscopy)"
        if enough
        else f"Meta-training would not pay: it takes about {many} classes of {each} pictures or more"
    )
    again = command("fsl", "try", f"support={root}", *chosen, "time=10m")
    return [*lines, f"{pays}{f': {again} compares' if enough else ''}."]


def _seconds(budget: str) -> float:
    """600 for 10m, 0 for nothing."""
    if not budget:
        return 0.0
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", budget)) or not float(found[1]):
        raise UserError(f"time={budget}: type it as time=10m, 90s or 1h.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
