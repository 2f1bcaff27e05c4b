"""Class rows of a classifier's classes: typed, kept, beside the known items, or made of names by a text tower."""

from __future__ import annotations

from typing import Any

import torch

from fsl_cli.data.class_rows import rows_in
from fsl_cli.data.left_out import first_five
from fsl_cli.errors import UserError
from fsl_cli.settings.registry import names
from fsl_cli.use.predictor import Predictor
from fsl_cli.use.saved import UNLABELLED, Support

TYPED = ("class_rows", "classes")


def demand_read(run: Predictor, typed: dict[str, str]) -> None:
    """Raises UserError where what is typed is not what the method looks at."""
    algo = run.run.settings.algo_name
    if not run.algorithm.reads_class_rows:
        for key in TYPED:
            if typed.get(key):
                raise UserError(
                    f"{key}={typed[key]}: algo={algo} does not look at class rows. Leave it out, or choose "
                    "algo=zeroshot or tipadapter."
                )
    for key in ("support", "add", "correct"):
        if typed.get(key) and typed.get("classes"):
            raise UserError(
                f"classes={typed['classes']}: with {key}=, the classes are those known there. Leave it out."
            )
        if typed.get(key) and not run.algorithm.looks_at_support:
            raise UserError(
                f"{key}={typed[key]}: algo={algo} looks at no known items: it knows a class by its row alone. Type "
                "class_rows=FILE with a row for each class in its place."
            )


def with_rows(run: Predictor, support: Support, typed: dict[str, str]) -> Support:
    """The support set with a class row of each of its classes, and of those that are typed. Raises UserError."""
    if not run.algorithm.reads_class_rows:
        return support._replace(class_rows={})
    rows = dict(support.class_rows)
    if typed.get("class_rows"):
        rows |= rows_in(typed["class_rows"], "class_rows")
    known = {label for label in support.labels if label != UNLABELLED}
    wanted = sorted({*known, *names(typed.get("classes", ""))})
    tower = run.algorithm.shared_backbone.of_names if run.algorithm.shared_backbone else None
    without = [label for label in wanted if label not in rows]
    if tower and without:
        rows |= dict(zip(without, tower(without).float().cpu().numpy(), strict=True))
    elif typed.get("classes") and without:
        raise UserError(
            f"classes={typed['classes']}: algo={run.run.settings.algo_name} backbone="
            f"{run.run.settings.backbone_name} makes no class rows of names. Type class_rows=FILE with a row for "
            "each class, or algo=tipadapter backbone=openclip without a run."
        )
    _demand_all(run, rows, sorted(known) or sorted(rows))
    unused = [label for label in rows if known and label not in known]
    if unused and typed.get("class_rows"):
        print(f"class_rows: left out: {len(unused):,} of classes that are not known by items: {first_five(unused)}.")
    return support._replace(class_rows={label: rows[label] for label in rows if label not in unused})


def none_known(run: Predictor) -> Support:
    """A support set without items, for methods that need none."""
    backbone = run.backbone
    items = torch.zeros(0, backbone.out_features) if backbone else run.pixels([])
    return Support(items, [], [], [], {})


def _demand_all(run: Predictor, rows: dict[str, Any], wanted: list[str]) -> None:
    """Raises UserError where a class has no row, or one of another width."""
    width = run.image.class_rows
    how = "Type class_rows=FILE.npz with the arrays class_rows (classes, k) and class_names"
    if not wanted:
        algo = run.run.settings.algo_name
        raise UserError(f"algo={algo} knows classes by their rows: attributes, or embeddings of names. {how}.")
    without = [label for label in wanted if label not in rows]
    if without:
        raise UserError(
            f"{len(without):,} of the {len(wanted):,} classes have no class row: {first_five(without)}. {how}."
        )
    odd = [label for label in wanted if len(rows[label]) != width]
    if odd:
        raise UserError(
            f"The class row of {odd[0]} has {len(rows[odd[0]]):,} numbers, and {width:,} are needed. Choose those "
            "that were made alike."
        )
