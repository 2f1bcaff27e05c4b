"""Your own texts: a table text,label[,split], JSON lines with these keys, or a folder per class with a text a file.

The twin of `folder`: without splits of their own, these are shares of the classes, in an order that depends on the seed
and the class names only. An item is a text's first `size` code points (letters composed, white space made one blank).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

import numpy as np

from fsl_cli.data.copies import divided
from fsl_cli.data.layouts import refuse
from fsl_cli.data.names import own_name
from fsl_cli.data.sources.folder import split_classes
from fsl_cli.data.store import DataSet, Images, cache_folder, open_store
from fsl_cli.data.text_files import Chosen, Text, find_texts
from fsl_cli.data.texts import as_items
from fsl_cli.errors import command
from fsl_cli.ranges import Count, Natural, PartOf


def texts(
    root: str | None = None,
    size: Count = 128,
    val_fraction: PartOf = 0.2,
    test_fraction: PartOf = 0.2,
    split_seed: Natural = 0,
    on_error: Literal["stop", "skip"] = "stop",
    on_small: Literal["stop", "skip"] = "stop",
    text_column: str | int | None = None,
    label_column: str | int | None = None,
    name: str | None = None,
    cache: str | None = None,
) -> DataSet:
    """The texts at `root`, each of `size` code points: what is longer is cut, and that is told.

    `root` is a table (CSV, TSV, JSON or JSON lines), a folder, or a zip or tar of either; `text_column` and
    `label_column` name a table's columns, or number them from 1, where their names do not tell. Where there is neither
    a column split nor tables or folders train and test, `val_fraction` and `test_fraction` of the classes are drawn by
    `split_seed`. `on_error="skip"` leaves out what is empty or cannot be read; `on_small="skip"` classes with fewer
    texts than an episode takes. Reports call it `name`, by default as `own_name` does. Raises UserError.
    """
    fractions = {"val": val_fraction, "test": test_fraction}
    if sum(fractions.values()) >= 1 and fractions != {"val": 0, "test": 1}:
        refuse("These values cannot be:", ["data.val_fraction and data.test_fraction together leave no classes."])
    found = find_texts(root, chosen=Chosen(text_column, label_column, on_error == "skip"))
    predict = command("fsl", "predict", "run=RUN", f"support={root}", "query=FILE.csv")
    predict = f"{predict} with a run that was trained on texts"
    lists, classes, lost = split_classes(
        found.groups, found.left_out, fractions, split_seed, on_small, str(root), predict
    )

    digest = blake2b(digest_size=16)
    for label in sorted(classes):
        digest.update(json.dumps([label, [text.text for text in classes[label]]]).encode())

    def drawn() -> Iterable[tuple[str, Images]]:
        print(f"Read as {found.reading}.")
        tell_cut([text for own in classes.values() for text in own], size)
        for label in sorted(classes):
            yield label, as_items((text.text for text in classes[label]), size)

    recipe = {"size": size, "items": "texts", "texts": digest.hexdigest()}
    store = open_store(cache_folder(cache), "texts", recipe, drawn)
    split = f"seeded-{split_seed}" if "" in found.groups else "csv" if found.table else "folders"
    data = divided(own_name(root, name), store, split, lists, "none")
    return data._replace(reading=found.reading, left_out=lost, on_small=on_small, items="texts")


def tell_cut(texts: list[Text], size: int) -> None:
    """Say how many texts are longer than an item, and which size would take most of them whole."""
    lengths = [len(text.text) for text in texts]
    longer = sum(length > size for length in lengths)
    if longer:
        whole = int(np.quantile(lengths, 0.95))
        print(
            f"{longer:,} of {len(texts):,} texts are longer than {size} characters, and cut there. "
            f"data.size={whole} takes 95% of them whole."
        )
