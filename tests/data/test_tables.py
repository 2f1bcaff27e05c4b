"""Tables as people have them: separators, headers, encodings, paths; and what to type where they stay ambiguous."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsl_cli.data.layouts import Found, find
from fsl_cli.data.listed import Chosen
from fsl_cli.data.queries import queries
from fsl_cli.errors import UserError

NAMES = ("ash", "elm", "oak")
ROWS = [(f"photos/{name}/{name}{i}.jpg", name) for name in NAMES for i in range(3)]
EXPECTED = {"": {name: [f"{name}{i}.jpg" for i in range(3)] for name in NAMES}}
Rows = list[tuple[str, ...]]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for path, _ in ROWS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / path)
    return tmp_path


def text(rows: Rows, separator: str = ",", header: tuple[str, ...] = ("file", "label")) -> str:
    return "\n".join(separator.join(row) for row in ([header] if header else []) + rows) + "\n"


def seen(found: Found) -> dict[str, dict[str, list[str]]]:
    return {
        part: {name: [Path(each.file.name).name for each in own] for name, own in classes.items()}
        for part, classes in found.groups.items()
    }


def changed(change: Callable[[str], str]) -> Rows:
    return [(change(path), label) for path, label in ROWS]


HEADERS = [
    *[(file, "label") for file in ("filename", "File_Name", "path", "IMAGE", "image_id", "Image ID", "id", "img_path")],
    *[("file", label) for label in ("Class", "category", "Breed", "TARGET", "species", "class_name")],
    ("FileName", "Category_Name"), ("what", "label"), ("file", "what"), ("what", "why"),
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS, ids="-".join)
def test_headers_and_separators(here: Path, header: tuple[str, ...]) -> None:
    for separator in ",;\t|":
        for order in (1, -1):
            (here / "list.csv").write_text(text([row[::order] for row in ROWS], separator, header[::order]))
            for root in (here / "list.csv", here):
                found = find(str(root))
                assert seen(found) == EXPECTED
                assert f"columns {header[0]} and {header[1]}; 3 classes" in found.reading


@pytest.mark.parametrize(
    "content",
    {
        "no header": text(ROWS, header=()),
        "no header, the label first": text([row[::-1] for row in ROWS], header=()),
        "backslashes": text(changed(lambda path: path.replace("/", "\\"))),
        "without endings": text(changed(lambda path: path[:-4])),
        "other letters' case": text(changed(str.upper)),
        "names alone": text(changed(lambda path: path.rpartition("/")[2])),
        "names alone, without endings": text(changed(lambda path: path.rpartition("/")[2][:-4])),
        "another machine's": text(changed(lambda path: f"/home/somebody/{path}")),
        "another machine's Windows": text(changed(lambda path: f"C:\\me\\{path}".replace("/", "\\"))),
        "quoted": "\n".join(f'"{a}","{b}"' for a, b in [("file", "label"), *ROWS]),
        "Excel's own line": f"sep=;\n{text(ROWS, ';')}",
        "lines of Windows": text(ROWS).replace("\n", "\r\n"),
        "lines of old Macs": text(ROWS).replace("\n", "\r"),
        "a column of numbers": text([(str(i), *row) for i, row in enumerate(ROWS)], header=("", "file", "label")),
        "commas at the ends": text(ROWS).replace("\n", ",\n"),
        "empty rows": text(ROWS) + "\n,\n , \n",
        "a row twice": text([*ROWS, ROWS[0]]),
        "more columns": text([(a, "7", b, "x") for a, b in ROWS], header=("image", "width", "breed", "source")),
        "the class as number and word": text(
            [(a, str(NAMES.index(b)), b) for a, b in ROWS], header=("id", "label", "class")
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_else_a_table_may_look_like(here: Path, content: tuple[str, str]) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        (here / "my.csv").write_bytes(content[1].encode(encoding))
        for root in (here / "my.csv", here):
            assert seen(find(str(root))) == EXPECTED, encoding
        asked = queries([str(here / "my.csv")], NAMES)
        assert {Path(query.file.name).name: query.label for query in asked} == {Path(a).name: b for a, b in ROWS}


@pytest.mark.parametrize("column", ["split", "Set", "subset", "partition", "fold"])
@pytest.mark.parametrize(
    "values",
    [("train", "val", "test"), ("Training", "VALID", "testing"), ("base", "dev", "novel"), ("TRN", "val", "eval")],
)
def test_splits_by_their_usual_names(here: Path, column: str, values: tuple[str, ...]) -> None:
    rows: Rows = [(*row, values[NAMES.index(row[1])]) for row in ROWS]
    (here / "list.csv").write_text(text(rows, header=("file", "label", column)))
    found = find(str(here))
    expected = {part: {name: EXPECTED[""][name]} for part, name in zip(("train", "val", "test"), NAMES, strict=True)}
    assert seen(found) == expected
    (here / "list.csv").write_text(text(rows, header=()))
    assert seen(find(str(here))) == expected


def listing(form: str) -> Any:
    if form == "Chen":
        return {
            "label_names": list(NAMES),
            "image_names": [f"/elsewhere/{path}" for path, _ in ROWS],
            "image_labels": [NAMES.index(label) for _, label in ROWS],
        }
    return {
        "records": [{"file": path, "label": label} for path, label in ROWS],
        "labels of files": dict(ROWS),
        "files of labels": {name: [path for path, label in ROWS if label == name] for name in NAMES},
    }[form]


@pytest.mark.parametrize("form", ["Chen", "records", "labels of files", "files of labels"])
def test_json_lists(here: Path, form: str) -> None:
    (here / "all.json").write_text(json.dumps(listing(form)))
    for root in (here, here / "all.json"):
        assert seen(find(str(root))) == EXPECTED


@pytest.mark.parametrize("names", [("base", "val", "novel"), ("train", "val", "test"), ("meta_train", "dev", "eval")])
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_table_for_each_split(here: Path, names: tuple[str, ...], ending: str) -> None:
    for name, part in zip(NAMES, names, strict=True):
        own = [row for row in ROWS if row[1] == name]
        (here / f"{part}.{ending}").write_text(text(own) if ending == "csv" else json.dumps(dict(own)))
    assert seen(find(str(here))) == {
        part: {name: EXPECTED[""][name]} for part, name in zip(("train", "val", "test"), NAMES, strict=True)
    }


def test_other_tables_mean_nothing_but_are_told(here: Path) -> None:
    (here / "labels.csv").write_text(text([(Path(a).stem, b) for a, b in ROWS], header=("id", "breed")))
    (here / "sample_submission.csv").write_text("id,ash,elm,oak\nash0,0.3,0.3,0.4\n")
    (here / "sizes.csv").write_text("label,pixels\nash,7\n")
    (here / "coco.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    found = find(str(here))
    assert seen(found) == EXPECTED and found.reading.startswith("table labels.csv, columns id and breed")
    assert [line.split(",")[0] for line in found.left_out] == ["2 .csv files", "1 .json file"]


def test_a_table_in_a_folder_of_its_own(here: Path) -> None:
    (here / "notes").mkdir()
    for path, _ in ROWS:
        (here / path).rename(here / "photos" / Path(path).name)
    (here / "notes" / "list.csv").write_text(text([(Path(a).name, b) for a, b in ROWS], header=("image", "breed")))
    found = find(str(here))
    assert seen(found) == EXPECTED and found.reading.startswith("table notes/list.csv")


def test_a_name_that_two_pictures_have_is_not_guessed(here: Path) -> None:
    for folder in ("one", "two"):
        (here / folder).mkdir()
        Image.new("L", (4, 4)).save(here / folder / "same.png")
    (here / "list.csv").write_text("file,label\nsame.png,a\nold/ash0.jpg,b\n")
    with pytest.raises(UserError) as caught:
        find(str(here / "list.csv"))
    assert f"line 2: same.png may be {here}/one/same.png, {here}/two/same.png: write more" in str(caught.value)
    assert f"line 3: {here}/old/ash0.jpg is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        (ROWS, ("what", "why", "genus")),
        (ROWS, ("file", "class", "category")),
        ([(str(i), "x", b) for i, (_, b) in enumerate(ROWS)], ("nr", "x", "label")),
        (ROWS, ()),
    ],
)
def test_what_to_type_where_columns_are_ambiguous(here: Path, rows: Rows, header: tuple[str, ...]) -> None:
    """The message's own words, typed, make the table one that is read, or name the row at fault."""
    wide = [(row[0], row[1], f"{row[1]}{i % 2}") if len(row) == 2 else row for i, row in enumerate(rows)]
    (here / "list.csv").write_text(text(wide, header=header))
    with pytest.raises(UserError) as caught:
        find(str(here / "list.csv"))
    said = str(caught.value)
    [setting] = set(re.findall(r"data\.(file_column|label_column)=", said))
    choices = re.findall(r"label_column=(\w+)", said) or re.search(r"one of ([^;]*);", said)[1].split(", ")  # type: ignore[index]
    for choice in choices:
        typed: Any = int(choice) if choice.isdecimal() else choice
        if setting == "label_column":
            assert f" {choice}" in find(str(here / "list.csv"), chosen=Chosen(label_column=typed)).reading
        else:
            with pytest.raises(UserError, match="is missing"):
                find(str(here / "list.csv"), chosen=Chosen(file_column=typed))
    with pytest.raises(UserError, match=rf"data\.{setting}=none: .*list\.csv has the columns "):
        find(str(here / "list.csv"), chosen=Chosen(**{setting: "none"}))


def test_what_is_listed_but_not_there_may_be_left_out(here: Path) -> None:
    (here / "list.csv").write_text(text([*ROWS, ("photos/gone.jpg", "ash")]))
    with pytest.raises(UserError, match=r"data\.on_error=skip leaves.*\n  line 11: .*gone\.jpg is missing"):
        find(str(here / "list.csv"))
    found = find(str(here / "list.csv"), chosen=Chosen(skip=True))
    assert seen(found) == EXPECTED and found.left_out == ["1 row of list.csv: listed twice, or not there"]
