"""Your own images: in which forms, what counts, how it is cut, how the classes are divided, and what is refused."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsl_cli.data import decode, photos
from fsl_cli.data.sources.folder import folder
from fsl_cli.data.store import DataSet, split_hash
from fsl_cli.errors import UserError

GREY = 128


def paint(path: Path, value: int | np.ndarray = GREY) -> None:
    """Write a grey 8 x 8 image, or the array given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(value if isinstance(value, np.ndarray) else np.full((8, 8), value, np.uint8)).save(path)


def zoo(root: Path, *classes: str) -> Path:
    for name in classes:
        paint(root / name / "1.png")
    return root


def opened(root: Path, **choices: Any) -> DataSet:
    return folder(str(root), **{"cache": str(root.parent / "cache"), "size": 8, "channels": 1, **choices})


def names(data: DataSet) -> dict[str, list[str]]:
    return {part: [data.store.names[c] for c in split.classes] for part, split in data.splits.items()}


def one_image(root: Path, **choices: float) -> np.ndarray:
    """What became of the only image in class `it`, (channels, size, size)."""
    data = opened(zoo(root, "b", "c"), **choices)
    return np.array(data.store.images[data.store.starts[data.store.names.index("it")]])


def test_classes_are_divided_by_the_seed_and_their_names_only(tmp_path: Path) -> None:
    data = opened(zoo(tmp_path / "zoo", *"ihgfedcba"))
    assert data.store.names == list("abcdefghi")
    assert names(data) == {"train": list("acdeh"), "val": list("gi"), "test": list("bf")}  # frozen: must not change
    assert data.protocol.keys() == {"split", "split_hash", "rotations"} and data.protocol["split"] == "seeded-0"
    other = opened(tmp_path / "zoo", split_seed=1)
    assert other.protocol["split"] == "seeded-1" and other.protocol["split_hash"] != data.protocol["split_hash"]


@pytest.mark.parametrize(
    ("count", "val", "test", "sizes"),
    [(3, 0.2, 0.2, (1, 1, 1)), (3, 0.5, 0.49, (1, 1, 1)), (10, 0.3, 0.1, (5, 3, 2)), (6, 0.2, 0.2, (2, 2, 2))],
)
def test_each_split_gets_its_share_and_at_least_two_where_there_are_six(
    tmp_path: Path, count: int, val: float, test: float, sizes: tuple[int, int, int]
) -> None:
    divided = names(opened(zoo(tmp_path / "zoo", *"abcdefghij"[:count]), val_fraction=val, test_fraction=test))
    assert tuple(len(divided[part]) for part in ("train", "val", "test")) == sizes
    assert sorted(sum(divided.values(), [])) == list("abcdefghij"[:count])


def test_folders_train_val_test_are_the_splits(tmp_path: Path) -> None:
    root = zoo(tmp_path / "zoo", "train/z", "train/b", "val/c", "test/a")
    data = opened(root)
    assert names(data) == {"train": ["b", "z"], "val": ["c"], "test": ["a"]}
    assert data.store.names == ["a", "b", "c", "z"]
    assert data.protocol["split"] == "folders"


def test_without_val_its_classes_come_out_of_train(tmp_path: Path) -> None:
    divided = names(opened(zoo(tmp_path / "zoo", "train/b", "train/c", "train/d", "test/a")))
    assert divided["test"] == ["a"] and len(divided["val"]) == 1
    assert sorted(divided["train"] + divided["val"]) == ["b", "c", "d"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert opened(zoo(tmp_path / "zoo", "train", "bus", "car")).store.names == ["bus", "car", "train"]


def test_which_files_count_and_in_which_order(tmp_path: Path) -> None:
    root = zoo(tmp_path / "zoo", "b", "c", ".git")
    order = [
        "it/.hidden.png",
        "it/.trash/1.png",
        *[f"it/{n}.png" for n in (5, 2, 9, 7, 3, 8)],
        "it/10.PNG",
        "it/a/b/1.jpg",
    ]
    for value, name in enumerate(order):
        paint(root / name, 20 * value)
    (root / "it" / "notes.txt").write_text("not an image")
    store = opened(root).store
    assert store.names == ["b", "c", "it"] and store.starts.tolist() == [0, 1, 2, 10]
    counted = [order[int(value) // 20] for value in store.images[2:].mean((1, 2, 3))]
    assert counted == ["it/10.PNG", *[f"it/{n}.png" for n in (2, 3, 5, 7, 8, 9)], "it/a/b/1.jpg"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "name"),
    [("1", "a.png"), ("L", "a.bmp"), ("LA", "a.png"), ("P", "a.png"), ("RGB", "a.webp"), ("RGBA", "a.png")]
    + [("CMYK", "a.jpg"), ("I;16", "a.png"), ("I", "a.tiff"), ("F", "a.tif"), ("YCbCr", "a.jpeg"), ("L", "a.pgm")],
)
def test_every_mode_becomes_8_bits(tmp_path: Path, mode: str, name: str, channels: int) -> None:
    path = tmp_path / "zoo" / "it" / name
    grey = np.full((8, 8), GREY, np.uint8)
    if mode == "I;16" or mode == "I":
        paint(path, (grey * 257.0).astype(np.uint16 if mode == "I;16" else np.int32))
    elif mode == "F":
        paint(path, (grey / 255).astype(np.float32))
    else:
        path.parent.mkdir(parents=True)
        Image.fromarray(grey).convert(mode, dither=Image.Dither.NONE).save(path)
    image = one_image(tmp_path / "zoo", channels=channels)
    assert image.shape == (channels, 8, 8)
    assert np.abs(image.astype(int) - (255 if mode == "1" else GREY)).max() <= 2


def test_colours_and_what_is_transparent(tmp_path: Path) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4] = (200, 100, 50, 255)  # above; below is transparent black
    paint(tmp_path / "zoo/it/1.png", rgba)
    image = one_image(tmp_path / "zoo", channels=3)
    assert image[:, 0, 0].tolist() == [200, 100, 50] and image[:, 7, 7].tolist() == [255, 255, 255]


def test_the_camera_was_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn it clockwise to look at it
    pixels = np.zeros((200, 400), np.uint8)
    pixels[:, :200] = 255  # left half white: upright, the upper half is
    (tmp_path / "zoo/it").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "zoo/it/1.jpg", exif=exif)
    image = one_image(tmp_path / "zoo")[0]
    assert image[:3].min() > 250 and image[-3:].max() < 5


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    pixels = np.full((20, 60), 255, np.uint8)
    pixels[:, 20:40] = GREY
    paint(tmp_path / "zoo/it/1.png", pixels)
    assert (one_image(tmp_path / "zoo")[:, :, 1:-1] == GREY).all()  # the outermost pixels see their neighbours


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((80, 80), np.uint8)
    stripes[:, ::2] = 254
    paint(tmp_path / "zoo/it/1.png", stripes)
    assert np.abs(one_image(tmp_path / "zoo")[:, :, 1:-1].astype(int) - 127).max() <= 3


def test_large_jpegs_stay_sharp(tmp_path: Path) -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, np.arange(256) % 16 < 8] = 255
    paint(tmp_path / "zoo/it/1.jpg", stripes)
    image = one_image(tmp_path / "zoo", size=64)[0]  # stripes of 2 pixels
    assert image[:, 1::4].min() > 210 and image[:, 2::4].max() < 45


def test_the_cache_is_used_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = zoo(tmp_path / "zoo", "a", "b", "c")
    before = opened(root).store.hash
    with monkeypatch.context() as patch:
        patch.setattr(photos.Image, "open", lambda *_: pytest.fail("decoded again"))
        assert opened(root).store.hash == before
        assert opened(root, split_seed=5).store.hash == before
    paint(root / "b/1.png", 7)
    changed = opened(root).store
    assert changed.hash != before and (changed.images[1] == 7).all()
    paint(root / "b/2.png", 9)
    assert opened(root).store.starts.tolist() == [0, 1, 3, 4]
    (root / "b/2.png").rename(root / "c/0.png")  # sizes, times and their order stay
    assert opened(root).store.starts.tolist() == [0, 1, 2, 4]
    assert opened(root, size=4).store.images.shape == (4, 1, 4, 4)


@pytest.mark.parametrize(
    ("files", "messages"),
    [
        ([], ["has no class folders", "a folder per class"]),
        (["1.png", "2.png"], ["has 2 images but no class folders"]),
        (["a/1.png", "b/1.png"], ["2 classes (a, b) cannot be divided", "6 classes or more", "fsl predict support="]),
        (["a/1.png", "b/1.txt", "c/.1.png"], ["1 class (a) cannot", "2 folders, such as ", "zoo/b: without pictures"]),
        (["train/a/1.png"], ["1 class (a) cannot"]),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png", "more/d/1.png"], ["zoo/more is none of train, val and"]),
        (["train/a/1.png", "trn/b/1.png", "test/c/1.png"], ["zoo/train and ", "zoo/trn are both train", "rename"]),
        (["train/1.png", "test/c/1.png"], ["zoo/train has 1 images but no class folders"]),
        (["train/a/1.png", "test/b/1.png"], ["1 class (a) cannot be divided among train, val", "4 classes or more"]),
        (["train/a/1.png", "train/b/1.png", "test/b/1.png"], ["train and test both have b: keep a class in one split"]),
        ([f"train/{c}/1.png" for c in "ab"] + [f"val/{c}/1.png" for c in "ab"], ["both have a, b", "test is missing"]),
        ([f"c{number:02d}/1.txt" for number in range(12)], ["has no class folders", "12 .txt files, such as "]),
    ],
)
def test_folders_that_are_no_data_set(tmp_path: Path, files: list[str], messages: list[str]) -> None:
    root = tmp_path / "zoo"
    root.mkdir()
    for name in files:
        paint(root / name) if name.endswith("png") else listed(root / name, "text")
    with pytest.raises(UserError) as caught:
        opened(root)
    for message in messages:
        assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 12


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "type data.root=ROOT"),
        ("nowhere", "data.root=nowhere does not exist"),
        ("nowhere.csv", "data.root=nowhere.csv does not exist"),
        (__file__, "test_folder.py is a file, but no CSV, zip or tar"),
    ],
)
def test_the_root_is_no_folder(tmp_path: Path, root: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        folder(root, cache=str(tmp_path))


def test_the_root_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo(tmp_path / "zoo", "a", "b", "c")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder("~/zoo", cache=str(tmp_path / "cache")).store.images.shape == (3, 3, 84, 84)


def test_bad_values_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        folder(str(tmp_path), size=0, channels=4, val_fraction=0.5, test_fraction=0.5)
    for name in ("data.size=0", "data.channels=4", "data.val_fraction=0.5 data.test_fraction=0.5"):
        assert name in str(caught.value)


def test_files_that_are_no_images_are_one_error_and_leave_no_cache(tmp_path: Path) -> None:
    root = zoo(tmp_path / "zoo", "a", "b", "c")
    (root / "a/text.png").write_text("hello")
    (root / "b/empty.jpg").touch()
    paint(root / "c/cut.png", np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8))
    (root / "c/cut.png").write_bytes((root / "c/cut.png").read_bytes()[:3000])
    with pytest.raises(UserError) as caught:
        opened(root)
    for message in ("a/text.png: it is no image", "b/empty.jpg", "c/cut.png: ", "Delete them", "data.on_error=skip"):
        assert message in str(caught.value)
    assert "1.png" not in str(caught.value) and not (tmp_path / "cache").exists()


def zipped(path: Path, files: Path, top: str = "") -> Path:
    """All that lies in the folder `files`, as a zip, inside a folder called `top`."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(files.rglob("*")):
            archive.write(file, f"{top}{file.relative_to(files)}")
        archive.writestr("__MACOSX/", b"")
    return path


def listed(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows))
    return path


def shades(root: Path, part: Callable[[str], str] = lambda name: "") -> dict[str, Path]:
    """Classes a to e, two images of one grey each: as class folders, CSV, zips and so on, in folders of `root`."""
    rows = ["label,split,file" if part("a") else "label,file"]
    for i, name in enumerate("abcde"):
        for j in (0, 1):
            paint(root / "folders" / part(name) / name / f"{j}.png", 50 * i + j)
            paint(root / "table" / "images" / f"{i}{j}.png", 50 * i + j)
            rows.append(",".join(filter(None, [name, part(name), f"images/{i}{j}.png"])))
    listed(root / "table" / "list.csv", rows[0], *sorted(rows[1:], reverse=True))
    listed(root / "table" / "sizes.csv", "file,bytes", "1.png,7")
    return {
        "folders": root / "folders",
        "zip": zipped(root / "1.zip", root / "folders"),
        "zip with a folder": zipped(root / "2.zip", root / "folders", "my photos/"),
        "folder with a CSV": root / "table",
        "CSV": root / "table/list.csv",
        "zip with a CSV": zipped(root / "3.zip", root / "table"),
        "zip with a folder with a CSV": zipped(root / "4.zip", root / "table", "photos/"),
    }


def test_every_form_holds_the_same_images_and_classes(tmp_path: Path) -> None:
    for form, root in shades(tmp_path).items():
        data = opened(root, cache=str(tmp_path / "cache" / form))
        assert data.store.names == list("abcde") and data.store.starts.tolist() == [0, 2, 4, 6, 8, 10], form
        assert data.store.images[:, 0, 0, 0].tolist() == [50 * i + j for i in range(5) for j in (0, 1)], form
        assert names(data) == {"train": ["c", "d", "e"], "val": ["a"], "test": ["b"]}, form  # frozen, as above
        assert data.protocol["split"] == "seeded-0" and data.mean == data.std == (0.5,)


@pytest.mark.parametrize("with_val", [True, False])
def test_every_form_may_bring_its_splits(tmp_path: Path, with_val: bool) -> None:
    part = {"a": "test", "c": "val" if with_val else "train"}
    for form, root in shades(tmp_path, lambda name: part.get(name, "train")).items():
        data = opened(root, cache=str(tmp_path / "cache" / form))
        expected = {"train": ["b", "d", "e"], "val": ["c"], "test": ["a"]}
        if not with_val:
            expected = {"train": ["d", "e"], "val": ["b", "c"], "test": ["a"]}  # frozen: must not change
        assert names(data) == expected, form
        kind = "csv" if "CSV" in form else "folders"
        assert data.protocol == {"split": kind, "split_hash": split_hash(expected), "rotations": "none"}


def test_what_a_csv_may_look_like(tmp_path: Path) -> None:
    for i in range(4):
        paint(tmp_path / "zoo/sub" / f"{i}.png", i)
    rows = [' "wing, left", x, ./sub/3.png', "", "wolf,x , sub/1.png ", "wolf,x,sub/0.png,too much"]
    rows.append(f"ü,,{tmp_path}/zoo/sub/2.png")
    (tmp_path / "zoo/my.CSV").write_text("\r\n".join(["label, other,file", *rows]), encoding="utf-8-sig")
    for root in (tmp_path / "zoo/my.CSV", tmp_path / "zoo"):
        store = opened(root, cache=str(tmp_path / "cache")).store
        assert store.names == ["wing, left", "wolf", "ü"] and store.starts.tolist() == [0, 1, 3, 4]
        assert store.images[:, 0, 0, 0].tolist() == [3, 0, 1, 2]


def test_a_csv_is_read_again_when_labels_change_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = shades(tmp_path, lambda name: {"a": "test", "b": "val"}.get(name, "train"))["CSV"]
    opened(table)
    text = table.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(photos.Image, "open", lambda *_: pytest.fail("decoded again"))
        table.write_text(text.replace("b,val", "b,train"))
        assert names(opened(table))["val"] == ["b", "c"]
    table.write_text(text.replace("e,train,images/40.png", "d,train,images/40.png"))
    assert opened(table).store.starts.tolist() == [0, 2, 4, 6, 9, 10]


def test_a_zip_is_read_again_when_it_changes(tmp_path: Path) -> None:
    root = zoo(tmp_path / "zoo", "a", "b", "c")
    before = opened(zipped(tmp_path / "zoo.zip", root)).store
    paint(root / "b/1.png", 7)
    changed = opened(zipped(tmp_path / "zoo.zip", root)).store
    assert changed.hash != before.hash and (changed.images[1] == 7).all()


@pytest.mark.parametrize(
    ("rows", "messages"),
    [
        ([], ["list.csv is empty"]),
        (["file;label", "a;b"], ["line 2: ", "zoo/a is missing"]),
        (["file,size,kind", "1.png,7,a"], ["begins with file,size,kind", "Type data.label_column=", "size, kind"]),
        (["no,kind", "7,a"], ["begins with no,kind", "Type data.file_column=", "1, 2"]),
        (
            ["file,class,category", "1.png,a,x", "2.png,a,y"],
            ["class (1 values) and category (2 values)", "Type data.la"],
        ),
        (["file,label"], ["lists no images"]),
        (["file,label", "1.png,", ",a"], ["line 2: label is empty", "line 3: file is empty"]),
        (["file,label", "9.png,a", "zoo,b"], ["line 2: ", "zoo/9.png is missing", "line 3: ", "zoo/zoo is missing"]),
        (["file,label", "1.png,a", "2.png,b", "./1.png,c"], ["line 4: ./1.png is in line 2 too"]),
        (["file,label", "1.png,a", "2.png,b"], ["2 classes (a, b) cannot be divided"]),
        (["file,label,split", "1.png,a,new", "2.png,b,"], ["line 2: split is new", "line 3: split is empty"]),
        (["file,label,split", "1.png,a,train", "2.png,a,test"], ["train and test both have a: keep a class in one"]),
        (["file,label,split", "1.png,a,train", "2.png,b,val"], ["No line has the split test"]),
        (["label,file", "b,1.png", *["a,1.png"] * 20], ["line 3", "line 12", "and 10 more"]),
        (["file,label", "1.png,a", f"2.png,{'b' * 200_000}"], ["after line 2: field larger than"]),
        (["file,label", "1.png,a", '2.png,"b', "3.png,c"], ["after line 2: unexpected end of data"]),
    ],
)
def test_csvs_that_are_no_data_set(tmp_path: Path, rows: list[str], messages: list[str]) -> None:
    table = listed(tmp_path / "zoo/list.csv", *rows)
    paint(tmp_path / "zoo/1.png")
    paint(tmp_path / "zoo/2.png")
    with pytest.raises(UserError) as caught:
        opened(table)
    for message in messages:
        assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 12 and not (tmp_path / "zoo/cache").exists()


def test_a_csv_that_is_not_utf8_or_not_the_only_one(tmp_path: Path) -> None:
    root = zoo(tmp_path / "zoo", "a", "b", "c")
    (root / "one.csv").write_bytes("file,label\na/1.png,Bär".encode("latin-1"))
    with pytest.raises(UserError, match=r"zoo/one.csv is not in UTF-8 .*0xe4"):
        opened(root)
    listed(root / "two.csv", "file,label")
    with pytest.raises(UserError, match=r"zoo has 2 lists of images, one.csv, two.csv"):
        opened(root)
    (root / "one.csv").write_bytes("a\0\xff".encode("utf-16"))
    (root / "two.csv").write_text("a" * 200_000)  # more than Python's csv reads as one value
    assert opened(root).store.names == ["a", "b", "c"]


def test_zips_that_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    zipped(tmp_path / "flat.zip", zoo(tmp_path, "photos") / "photos")
    zipped(tmp_path / "parts.zip", zoo(tmp_path / "parts", "train/a", "train/b", "valid/c"))
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    for name, message in {
        "text.zip": "text.zip is a file, but no CSV, zip or tar (File is not a zip file). Type data.root=ROOT",
        "flat.zip": "flat.zip has 1 images but no class folders",
        "parts.zip": "parts.zip: test is missing: train and test are needed",
        "empty.zip": "empty.zip has no class folders",
    }.items():
        with pytest.raises(UserError) as caught:
            opened(tmp_path / name)
        assert message in str(caught.value)


def spoil(path: Path, member: str, encrypted: bool) -> None:
    """Change a byte of a zip's member, or mark it as encrypted."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(member).header_offset
    if encrypted:
        content[start + 6] |= 1
        content[content.rindex(member.encode()) - 46 + 8] |= 1  # in the directory at the end
    else:
        content[start + 30 + len(member) + 40] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("encrypted", "reason"), [(True, "encrypted"), (False, "Bad CRC-32")])
def test_a_member_of_a_zip_that_cannot_be_read(tmp_path: Path, encrypted: bool, reason: str) -> None:
    forms = shades(tmp_path)
    spoil(forms["zip"], "c/0.png", encrypted)
    with pytest.raises(UserError, match=rf"1 of 10 images cannot(.|\n)*1\.zip: c/0\.png: .*{reason}"):
        opened(forms["zip"])
    assert opened(forms["zip"], on_error="skip").store.starts.tolist() == [0, 2, 4, 5, 7, 9]
    spoil(forms["zip with a CSV"], "list.csv", encrypted)
    with pytest.raises(UserError, match=rf"3\.zip: list\.csv cannot be read .*{reason}"):
        opened(forms["zip with a CSV"])


def test_images_that_cannot_be_read_are_left_out_if_you_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = zoo(tmp_path / "zoo", "a", "b", "c")
    (root / "a/0.png").write_text("hello")
    for _ in range(2):
        data = opened(root, on_error="skip")
        assert data.store.starts.tolist() == [0, 1, 2, 3] and (data.store.images == GREY).all()
    assert (
        capsys.readouterr().out == f"Read as class folders; 3 classes.\n"
        f"Left out 1 of 4 images, which cannot be read:\n  {root}/a/0.png: it is no image\n"
    )
    (about,) = (tmp_path / "cache").glob("*/store.json")
    assert json.loads(about.read_text())["recipe"]["skipped"] == [f"{root}/a/0.png: it is no image"]
    (root / "a/1.png").unlink()
    (root / "c/1.png").write_text("hello")
    with pytest.raises(UserError) as caught:
        opened(root, on_error="skip")
    assert [line.strip() for line in str(caught.value).splitlines()] == [
        f"No image of {name} can be read: {root}/{file}: it is no image"
        for name, file in (("a", "a/0.png"), ("c", "c/1.png"))
    ]
    assert list((tmp_path / "cache").glob("*")) == [about.parent]


def test_rotations_are_a_setting(tmp_path: Path) -> None:
    root = zoo(tmp_path / "zoo", "a", "b", "c")
    for rotations, turns in {"none": [1, 1, 1], "train": [4, 1, 1], "all": [4, 4, 4]}.items():
        data = opened(root, rotations=rotations)
        assert [data.splits[part].turns for part in ("train", "val", "test")] == turns
        assert data.protocol["rotations"] == rotations
    assert len(list((tmp_path / "cache").glob("folder-*"))) == 1


def test_more_images_than_are_decoded_at_a_time_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One class of 50, in pieces of 4, by three threads of which the later may be done first."""
    monkeypatch.setattr(decode, "PIECE", 4)
    monkeypatch.setattr(decode, "WORKERS", 3)
    root = zoo(tmp_path / "zoo", "a", "c")
    for i in range(50):
        paint(root / "b" / f"{i:02d}.png", 5 * i)
    (root / "b" / "13.png").write_text("hello")
    store = opened(root, on_error="skip").store
    assert store.names == ["a", "b", "c"] and store.starts.tolist() == [0, 1, 50, 51]
    assert store.images[1:50, 0, 0, 0].tolist() == [5 * i for i in range(50) if i != 13]


def test_decoding_uses_threads_and_keeps_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PIECE", 1)
    monkeypatch.setattr(decode, "WORKERS", 2)
    together = Barrier(2, timeout=20)  # nobody passes alone
    begun: list[str] = []
    asked: list[slice] = []

    class Watched(list[decode.File]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    def image(file: decode.File, size: int) -> np.ndarray:
        begun.append(file.name)
        if len(begun) <= 2:
            together.wait()
        return np.zeros((1, size, size), np.uint8)

    stream = decode.decode({"a": Watched([decode.File("1.png", bytes)] * 100)}, 8, image=image)
    name, images = next(stream)
    assert name == "a" and images.shape == (1, 1, 8, 8)
    assert len(asked) <= 5, "two for each worker, and one in place of that which came"
    assert sum(len(images) for _, images in stream) == 99
