"""Class rows: every way to give them, what is refused, and episodes that carry them; and features from Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import settings
from test_embeddings import EACH, LABELS, NAMES, VALUES, kept, opened, wrong

from fsl_cli.data.tasks import Batch
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble

ROWS = np.random.default_rng(2).normal(size=(len(NAMES), 5)).astype(np.float32)
BACK = np.arange(len(NAMES))[::-1]  # rows need not be in any order


def with_rows(**changed: Any) -> dict[str, Any]:
    return {**wrong(), "class_rows": ROWS[BACK], "class_names": np.array(NAMES)[BACK], **changed}


def test_every_way_to_give_class_rows_gives_each_class_its_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **with_rows())
    numbers = np.repeat(np.arange(6), EACH)
    np.savez(tmp_path / "b.npz", x=VALUES, y=numbers, attributes=ROWS.astype(np.float64))
    np.savez(tmp_path / "c.npz", **wrong())
    np.savez(tmp_path / "rows.npz", features=ROWS[BACK], labels=np.array(NAMES)[BACK])
    np.save(tmp_path / "rows2.npy", ROWS)
    (tmp_path / "rows2.csv").write_text("\n".join(["class", *NAMES]))
    (tmp_path / "d").mkdir()
    np.savez(tmp_path / "d" / "classes.npz", features=ROWS, labels=np.array(NAMES))
    for name in NAMES:
        np.save(tmp_path / "d" / f"{name}.npy", VALUES[name == LABELS])
    ways: list[tuple[str, dict[str, Any]]] = [
        ("a.npz", {}), ("b.npz", {}), ("c.npz", {"class_rows": str(tmp_path / "rows.npz")}),
        ("c.npz", {"class_rows": str(tmp_path / "rows2.npy")}), ("d", {}),
    ]  # fmt: skip
    for root, more in ways:
        data = opened(tmp_path, tmp_path / root, **more)
        assert data.class_rows is not None and (data.class_rows == ROWS).all(), (root, more)
        assert "class rows of 5 numbers" in data.reading and len(data.store.names) == 6
    assert opened(tmp_path, tmp_path / "c.npz").class_rows is None


def test_rows_of_other_classes_are_told(tmp_path: Path) -> None:
    more = with_rows(class_rows=np.concatenate([ROWS, ROWS[:1]]), class_names=np.array([*NAMES, "zebra"]))
    np.savez(tmp_path / "a.npz", **more)
    assert opened(tmp_path, tmp_path / "a.npz").left_out == ["1 class row, zebra: there are no features of that class"]


NAN = np.where(np.arange(6)[:, None] == 1, np.nan, ROWS)
NONE = np.where(np.arange(6)[:, None] == 1, 0, ROWS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"class_rows": ROWS[:4], "class_names": np.array(NAMES[:4])},
            r"2 of the 6 classes have no class row: oak, yew",
        ),
        ({"class_rows": ROWS[:4]}, "has 4 class rows and 6 names of classes"),
        ({"class_names": np.arange(6)}, "6 of the 6 classes have no class row.*name them as the labels do"),
        ({"class_rows": NAN}, "the class row of oak in .*a.npz is not finite"),
        ({"class_rows": NONE}, "the class row of oak in .*a.npz is all zeros"),
        ({"class_rows": ROWS[0]}, r"class rows of shape \(5,\)"),
        ({"class_names": np.array(["ash"] * 6)}, "ash has two class rows"),
    ],
)
def test_class_rows_that_cannot_be_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **with_rows(**changed))
    with pytest.raises(UserError, match=f"(?s)its class rows cannot be used.*{message}"):
        opened(tmp_path, tmp_path / "a.npz")


def test_class_rows_of_several_widths_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "test")):
        own = np.array([name in NAMES[3 * number : 3 * number + 3] for name in LABELS])
        (tmp_path / "a").mkdir(exist_ok=True)
        rows = {"class_rows": ROWS[:, : 5 - number], "class_names": np.array(NAMES)}
        np.savez(tmp_path / "a" / f"{part}.npz", x=VALUES[own], label=LABELS[own], **rows)
    with pytest.raises(UserError, match=r"class rows of 5 numbers, .*test.npz of 4"):
        opened(tmp_path, tmp_path / "a")
    np.savez(tmp_path / "b.npz", **wrong())
    with pytest.raises(UserError, match="none.npz cannot be read: No such file"):
        opened(tmp_path, tmp_path / "b.npz", class_rows=str(tmp_path / "none.npz"))


def test_episodes_carry_the_rows_of_their_classes_also_without_support_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **with_rows())
    words = ["algo=simpleshot", "data=embeddings", f"data.root={tmp_path / 'a.npz'}", "way=2", "query=3", "steps=0"]
    made = settings([*words, "trainer=cpu"])
    for shot in (0, 2):
        tasks = assemble(made.having(shot=shot), ["test"]).episodes.tasks
        [some] = tasks.gather(Batch("test", 0, [0, 1, 2]), torch.device("cpu"))
        assert some.support.x.shape == (3, 2 * shot, 7, 1, 1) and some.support.y.shape == (3, 2 * shot)
        test = ROWS[4:]  # oak, yew
        assert some.class_rows is not None and (some.class_rows.numpy() == test[some.classes.numpy()]).all()
        same = VALUES[LABELS == "oak"] if some.classes[0, int(some.query.y[0, 0])] == 0 else VALUES[LABELS == "yew"]
        assert (same == some.query.x[0, 0, :, 0, 0].numpy()).all(1).any()


def test_parquet_of_lists_and_of_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    lists = {"embedding": list(VALUES), "label": pyarrow.array(LABELS).dictionary_encode()}
    parquet.write_table(pyarrow.table(lists), tmp_path / "a.parquet")
    wide = {"species": LABELS, **{f"f{i}": VALUES[:, i] for i in range(VALUES.shape[1])}}
    parquet.write_table(pyarrow.table(wide), tmp_path / "b.parquet")
    parquet.write_table(pyarrow.table({"embedding": list(ROWS), "label": list(NAMES)}), tmp_path / "classes.parquet")
    for name in ("a", "b"):
        data = opened(tmp_path, tmp_path / f"{name}.parquet")
        assert all((kept(data)[each] == VALUES[each == LABELS]).all() for each in NAMES), name
        assert data.class_rows is not None and (data.class_rows == ROWS).all()
    ragged = {"embedding": [VALUES[0], VALUES[1, :3]], "label": ["a", "b"]}
    parquet.write_table(pyarrow.table(ragged), tmp_path / "c.parquet")
    with pytest.raises(UserError, match="rows of its column embedding are not all as long"):
        opened(tmp_path, tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="d.parquet cannot be read"):
        opened(tmp_path, tmp_path / "d.parquet")
