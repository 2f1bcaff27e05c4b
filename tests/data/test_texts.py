"""Texts: the forms that are read, what is told of them, what is refused; and babble, which is the same everywhere."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import pytest
import torch

from fsl_cli.cli import run
from fsl_cli.data.sources.babble import babble, write
from fsl_cli.data.sources.texts import texts
from fsl_cli.data.store import DataSet
from fsl_cli.data.text_files import find_texts, text_queries
from fsl_cli.data.texts import as_items, as_text, cleaned, code_points
from fsl_cli.errors import UserError

ROWS = [
    (f"{name} says {number} — ой", name) for name in ("ash", "elm", "oak", "fir", "yew", "box") for number in "1234"
]


def table(path: Path, rows: list[tuple[str, ...]] = ROWS, header: str = "text,label") -> Path:  # type: ignore[assignment]
    lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
    path.write_text("\n".join([header, *lines] if header else lines), encoding="utf-8")
    return path


def opened(tmp_path: Path, root: Path, **more: object) -> DataSet:
    return texts(str(root), cache=str(tmp_path / "cache"), **{"size": 24, **more})  # type: ignore[arg-type]


def said(data: DataSet) -> dict[str, list[str]]:
    store = data.store
    return {
        name: [as_text(item) for item in store.images[store.starts[c] : store.starts[c + 1]]]
        for c, name in enumerate(store.names)
    }


def test_code_points_of_every_plane_come_back() -> None:
    words = ["a\U0001f600ж", "\U0010ffff z", ""]
    raw = torch.from_numpy(as_items(words, 4))
    points = code_points(raw, torch.float16)
    assert raw.shape == (3, 3, 1, 4) and points.shape == (3, 1, 1, 4) and points.dtype == torch.float32
    assert [as_text(each.flatten()) for each in points] == words == [as_text(each) for each in raw]
    assert cleaned(" e\u0301\n\t b\0 ") == "é b"


def test_every_form_gives_the_same_texts(tmp_path: Path) -> None:
    expected = {name: [text for text, own in ROWS if own == name] for name in sorted({name for _, name in ROWS})}
    forms = [table(tmp_path / "a.csv")]
    (forms[0].parent / "b.tsv").write_text("\n".join(f"{label}\t{text}" for text, label in ROWS))  # no header
    keys = ({"label": f"{label} ", "text": text, "other": "\u2028\x85"} for text, label in ROWS)  # no ends of lines
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in keys), "utf-8")
    (tmp_path / "d.csv").write_text((tmp_path / "a.csv").read_text(), encoding="utf-16")
    for number, (text, label) in enumerate(ROWS):
        place = tmp_path / "e" / "wrapper" / label / f"{number:02d}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")
    columns = {"text_column": 2, "label_column": "1"}
    found = [
        said(opened(tmp_path, tmp_path / name, **(columns if name == "b.tsv" else {})))
        for name in ("a.csv", "b.tsv", "c.jsonl", "d.csv", "e")
    ]
    assert found == [expected] * 5


def test_splits_of_a_table_of_folders_and_drawn_ones(tmp_path: Path) -> None:
    parts = {"ash": "train", "elm": "train", "oak": "dev", "fir": "dev", "yew": "test", "box": "test"}
    own = opened(tmp_path, table(tmp_path / "a.csv", [(*row, parts[row[1]]) for row in ROWS], "text,label,split"))
    for part, name in (("train", "ash"), ("train", "elm"), ("test", "yew"), ("test", "box")):
        (tmp_path / "b" / part / name).mkdir(parents=True)
        (tmp_path / "b" / part / name / "1").write_text("of no ending")
    folders = opened(tmp_path, tmp_path / "b")
    drawn = opened(tmp_path, table(tmp_path / "c.csv"))
    names = own.store.names
    assert {names[c] for c in own.splits["val"].classes} == {"oak", "fir"} and own.protocol["split"] == "csv"
    assert len(folders.splits["val"].classes) == 1 and folders.protocol["split"] == "folders"
    assert [len(drawn.splits[part].classes) for part in ("train", "val", "test")] == [2, 2, 2]
    assert drawn.items == "texts" and drawn.protocol["split"] == "seeded-0"


def test_what_is_longer_is_cut_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = opened(tmp_path, table(tmp_path / "a.csv"), size=5)
    assert "24 of 24 texts are longer than 5 characters, and cut there. data.size=15" in capsys.readouterr().out
    assert all(text == "ash s" for text in said(data)["ash"])


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            [*ROWS, (" ", "ash")],
            "text,label",
            r"texts yet \(data.on_error=skip .*\n  line 26: text is empty",
        ),
        ([*ROWS, ("hm", "")], "text,label", "line 26: label is empty"),
        (
            [(text, "one") for text, _ in ROWS],
            "text,label",
            r"1 class \(one\) cannot be divided .* fsl predict run=RUN",
        ),
        (
            [*ROWS, ("I like it", "a lot", "ash")],
            "text,label",
            "line 26: 3 cells, where the table has 2: put .* quotes",
        ),
        ([], "text,label", "It lists no texts"),
        ([(*row, "other") for row in ROWS], "text,label,split", "split is other: type train, val or test"),
        ([(*row, part) for row in ROWS for part in ("train", "test")], "text,label,split", "train and test both have"),
        ([row[:1] for row in ROWS], "text", "which column tells the class"),
    ],
)
def test_tables_that_are_refused(rows: list[tuple[str, ...]], header: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        opened(tmp_path, table(tmp_path / "a.csv", rows, header))


def test_what_leaves_out_the_empty_is_the_word_of_who_asks(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", [*ROWS, ("", "ash")])
    with pytest.raises(UserError, match=r"yet \(on_error=skip leaves"):  # fsl predict's
        find_texts(str(path), "support")
    with pytest.raises(UserError, match="2 cells, where the table has 1"):
        text_queries([str(table(tmp_path / "b.csv", [("hello", "you")], "text"))], ["ash"], [])


def test_other_things_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("text,label\nStraße,ash\n".encode("latin-1"))
    (tmp_path / "lines.jsonl").write_text('{"text": "a", "label": "b"}\n[1]\n')
    (tmp_path / "null.json").write_text('[{"text": "a", "label": "b"}, {"text": "c", "label": null}]')
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bytes" / "ash").mkdir(parents=True)
    (tmp_path / "bytes" / "ash" / "1.txt").write_bytes(b"abcdefgh\x00")
    cases = {
        "latin.csv": "not in UTF-8 .* iconv",
        "lines.jsonl": "line 2: is no JSON object",
        "null.json": "line 3: label is empty",
        "empty": "no class folders with text files, and no table",
        "empty.csv": "is empty: it has no texts",
        "bytes": r"yet \(data.on_error=skip leaves out .*it is no text",
        "nowhere.csv": "does not exist",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=f"(?s){message}"):
            opened(tmp_path, tmp_path / name)
    with pytest.raises(UserError, match="where your texts are"):
        texts()


def test_what_is_empty_or_alone_is_left_out_where_asked(tmp_path: Path) -> None:
    rows = [*ROWS, ("", "ash"), ("alone", "single")]
    data = opened(tmp_path, table(tmp_path / "a.csv", rows), on_error="skip", on_small="skip")
    assert "single" not in data.store.names and len(data.store.images) == len(ROWS)
    assert data.left_out == [f"1 row, line 26 of {tmp_path / 'a.csv'}: its text or label is empty, "
                             "or it has too many cells",
                             "1 class, single: with a single one"]  # fmt: skip


TINY = ["way=2", "shot=1", "query=1", "train_query=1", "steps=2", "val_every=1", "val_episodes=2", "episodes=2"]
SMALL = [*TINY, "backbone.width=8", "backbone.heads=2", "backbone.layers=1", "trainer=cpu", "calibrate=false"]


def test_a_run_on_texts_predicts_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained; duplicates and leaks told; tables, folders and files predicted, corrected, shown; a page made."""
    warned: list[str] = []
    monkeypatch.setattr("fsl_cli.experiment.repeats.warn", warned.append)
    parts = {"ash": "train", "elm": "train", "oak": "val", "fir": "val", "yew": "test", "box": "test"}
    rows = [(*row, parts[row[1]]) for row in ROWS]
    rows += [(ROWS[0][0], "ash", "train"), (ROWS[0][0], "box", "test")]
    root = table(tmp_path / "trees.csv", rows, "text,label,split")
    run(["train", "data=texts", f"data.root={root}", "data.size=24", f"out={tmp_path / 'out'}", *SMALL])
    assert "1 text is there twice in a class" in warned[0] and "1 text is in two classes" in warned[1]
    assert "1 texts are in several splits" in warned[2] and "ash number 0: ash says 1" in warned[2]
    [folder] = (tmp_path / "out").glob("protonet-*/*")
    assert json.loads((folder / "result.json").read_text())["image"]["items"] == "texts"

    new = table(tmp_path / "new.csv", [("pine and ash", "ash"), ("something", "none"), ("", "ash")])
    words = [f"run={folder}", f"support={table(tmp_path / 'known.csv')}", f"out={tmp_path / 'said'}", "unknown=off"]
    capsys.readouterr()
    run(["predict", *words, f"query={new}", "html=true"])
    shown = capsys.readouterr()
    assert "left out: 1 text, " in shown.err and "pine and ash" in shown.out
    header, *lines = (tmp_path / "said" / "predictions.csv").read_text().splitlines()
    assert header.startswith("file,text,label,ash,box") and lines[0].startswith(f"{new}:2,pine and ash,")
    page = (tmp_path / "said" / "predictions.html").read_text()
    assert "<blockquote>pine and ash</blockquote>" in page and "2 texts" in page
    run(["predict", *words, f"query={new}", f"save={tmp_path / 'kept'}"])
    table(tmp_path / "right.csv", [("new.csv:2", "pine and ash", "pine"), ("x", "a pine", "pine")], "file,text,label")
    run(["predict", f"run={tmp_path / 'kept'}", f"correct={tmp_path / 'right.csv'}"])
    assert f"knows {len(ROWS) + 2} texts of 7 classes" in capsys.readouterr().err
    (tmp_path / "notes" / "oak").mkdir(parents=True)
    (tmp_path / "notes" / "oak" / "1.txt").write_text("an oak")
    run(["predict", f"run={tmp_path / 'kept'}", f"query={tmp_path / 'notes'}", f"out={tmp_path / 'said'}", "--json"])
    [found] = json.loads(capsys.readouterr().out)["predictions"]
    assert (found["text"], found["true"]) == ("an oak", "oak")

    run(["show", "episode", f"run={folder}", f"out={tmp_path / 'episode.png'}"])
    run(
        [
            "data",
            "show",
            "texts",
            f"root={root}",
            "size=24",
            "split=test",
            "way=2",
            "query=1",
            f"out={tmp_path / 'a.png'}",
        ]
    )
    assert (tmp_path / "episode.png").stat().st_size > 5000 and (tmp_path / "a.png").stat().st_size > 5000
    for words, message in (([f"run={folder}", f"support={root}"], "graphs are made for pictures"),):
        with pytest.raises(UserError, match=message):
            run(["export", *words])
    with pytest.raises(UserError, match="glyphs has images, and this run sees texts"):
        run(
            [
                "test",
                f"run={folder}",
                "data=glyphs",
                "data.train_classes=2",
                "data.val_classes=2",
                "data.test_classes=2",
            ]
        )


def test_a_backbone_says_what_it_takes() -> None:
    small = ["data.train_classes=2", "data.val_classes=2", "data.test_classes=2", "query=2", "way=2", "train_way=2"]
    for words, message in (
        (["data=babble", "backbone=conv4"], "backbone=conv4 takes images; babble has texts. Type backbone=chars"),
        (["data=glyphs", "backbone=chars"], "backbone=chars takes texts; glyphs has images. Type backbone=conv4"),
        (["data=sinusoid", "algo=maml", "backbone=conv4"], "takes images; sinusoid has points. Type backbone=mlp"),
        (["data=babble", "augment.flip=true"], "augment changes images, and these are texts"),
        (["data=babble", "norm=running"], "Type norm=none"),
    ):
        own = [] if "sinusoid" in words[0] else small
        with pytest.raises(UserError, match=message):
            run(["check", *words, *own])


def test_babble_is_the_same_on_every_machine_and_has_languages(tmp_path: Path) -> None:
    written = [text for number in range(20) for text in write(seed=1, number=number, texts=3, size=50)]
    assert blake2b("\n".join(written).encode(), digest_size=8).hexdigest() == "8b64d58e615dd721"
    data = babble(3, 2, 2, texts=4, size=30, cache=str(tmp_path))
    more = babble(5, 2, 2, texts=4, size=30, cache=str(tmp_path))
    assert said(data)["language 002"] == said(more)["language 002"] != said(data)["language 001"]
    assert [len(data.splits[part].classes) for part in ("train", "val", "test")] == [3, 2, 2]
