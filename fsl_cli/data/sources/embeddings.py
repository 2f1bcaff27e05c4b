"""Your own features: what a network of any origin makes of your images, texts or sounds, computed once.

The twin of `folder`: without splits of their own, these are shares of the classes, in an order that depends on the seed
and the class names only. An item is a vector, of any width; `fsl embed` writes such files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from fsl_cli.data.copies import divided
from fsl_cli.data.embedding_files import find_embeddings
from fsl_cli.data.embeddings import as_items
from fsl_cli.data.feature_files import Chosen
from fsl_cli.data.layouts import refuse
from fsl_cli.data.names import own_name
from fsl_cli.data.sources.folder import split_classes
from fsl_cli.data.store import DataSet, Images, cache_folder, open_store
from fsl_cli.ranges import Natural, PartOf

FEW = "fsl test algo=simpleshot data=embeddings data.root=FILE.npz classes=all, where the classes need no training"


def embeddings(
    root: str | None = None,
    labels: str | None = None,
    class_rows: str | None = None,
    val_fraction: PartOf = 0.2,
    test_fraction: PartOf = 0.2,
    split_seed: Natural = 0,
    on_error: Literal["stop", "skip"] = "stop",
    on_small: Literal["stop", "skip"] = "stop",
    label_column: str | int | None = None,
    name: str | None = None,
    cache: str | None = None,
) -> DataSet:
    """The features at `root`, vectors of float32 as wide as they are.

    `root` is an npz, safetensors or Parquet file with the arrays features, labels and perhaps split, a npy with the
    table `labels` (by default the CSV of the same name), whose `label_column` tells the class, or a folder of these.
    Class rows, a vector for each class, are arrays class_rows and class_names of it, or the file `class_rows`.
    Where nothing tells splits, `val_fraction` and `test_fraction` of the classes are drawn by `split_seed`.
    `on_error="skip"` leaves out rows that are not finite, are all zeros, or have no label; `on_small="skip"` classes
    with fewer rows than an episode takes. Reports call it `name`, by default as `own_name` does. Raises UserError.
    """
    fractions = {"val": val_fraction, "test": test_fraction}
    if sum(fractions.values()) >= 1 and fractions != {"val": 0, "test": 1}:
        refuse("These values cannot be:", ["data.val_fraction and data.test_fraction together leave no classes."])
    found = find_embeddings(root, Chosen(labels, label_column, on_error == "skip", class_rows))
    lists, classes, lost = split_classes(found.groups, found.left_out, fractions, split_seed, on_small, str(root), FEW)

    def drawn() -> Iterable[tuple[str, Images]]:
        print(f"Read as {found.reading}.")
        for label in sorted(classes):
            yield label, as_items(found.of(classes[label]))

    recipe = {"items": "embeddings", "features": found.digest, "rows": sum(map(len, classes.values()))}
    store = open_store(cache_folder(cache), "embeddings", recipe, drawn)
    split = f"seeded-{split_seed}" if "" in found.groups else "own"
    data = divided(own_name(root, name), store, split, lists, "none")
    rows = np.stack([found.class_rows[name] for name in store.names]) if found.class_rows else None
    return data._replace(reading=found.reading, left_out=lost, on_small=on_small, items="embeddings", class_rows=rows)
