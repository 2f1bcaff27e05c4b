"""Layouts are recognised by what they mean, in whatever holds them, and what is left out is counted and named."""

from __future__ import annotations

import io
import os
import struct
import sys
import tarfile
import tracemalloc
import types
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from fsl_cli.cli import run
from fsl_cli.data import archives, formats, places, tables
from fsl_cli.data.layouts import Found, find
from fsl_cli.data.names import part_of
from fsl_cli.data.photos import photo
from fsl_cli.data.queries import queries
from fsl_cli.errors import UserError

CLASSES = ("ash", "beech", "elm")
Files = dict[str, bytes]


def picture(kind: str = "PNG", value: int = 128) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, kind)
    return file.getvalue()


def classes(*names: str, inside: str = "") -> Files:
    return {f"{inside}{name}/{i}.png": picture(value=50 * i) for name in names or CLASSES for i in range(2)}


def put(root: Path, files: Files) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content) if content != b"/" else (root / name).mkdir()
    return root


def zipped(root: Path, files: Files) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{name}/" if content == b"/" else name, b"" if content == b"/" else content)
    return root.with_suffix(".zip")


def windows(root: Path, files: Files) -> Path:
    """With the separators of Windows, as PowerShell's Compress-Archive once wrote them."""
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo()
            info.filename = name.replace("/", "\\") + ("\\" if content == b"/" else "")
            archive.writestr(info, b"" if content == b"/" else content)
    return root.with_suffix(".zip")


def tarred(packing: str) -> Callable[[Path, Files], Path]:
    def make(root: Path, files: Files) -> Path:
        path = root.with_name(f"{root.name}.tar{packing and '.' + packing}")
        with tarfile.open(path, f"w:{packing}") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(f"./{name}")
                info.type = tarfile.DIRTYPE if content == b"/" else tarfile.REGTYPE
                info.size = 0 if content == b"/" else len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return make


HOLDERS = {"folder": put, "zip": zipped, "Windows": windows, **{f"tar {p}": tarred(p) for p in ("", "gz", "bz2", "xz")}}


def counted(found: Found) -> dict[str, dict[str, int]]:
    return {part: {name: len(each) for name, each in own.items()} for part, own in found.groups.items()}


def left(found: Found) -> str:
    return "\n".join(found.left_out)


# ---- what may be a picture ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:IM image format")
def test_whatever_pillow_can_decode_is_a_picture_by_its_ending_or_by_how_it_begins(tmp_path: Path) -> None:
    """Each format that Pillow writes too, called as it should, without an ending, and with one that means nothing."""
    written = []
    for kind in sorted(set(formats.FORMATS) & set(Image.SAVE)):
        ending = next((each for each, name in Image.registered_extensions().items() if name == kind), "")
        try:
            content = picture(kind)
        except (OSError, ValueError, SystemError):  # not from colours
            continue
        again = photo(places.disk_file(put(tmp_path, {"it": content}) / "it"), 8, 3)
        assert again.shape == (3, 8, 8)
        named = [f"it{ending}", f"IT{ending.upper()}"] if ending else []
        named += ["none", "odd.dat"] if kind in formats.KNOWN else []
        put(tmp_path / "zoo" / kind, dict.fromkeys(named, content))
        written += [(kind, len(named))] if named else []
    assert len(written) > 12
    found = find(str(tmp_path / "zoo"))
    assert counted(found)[""] == dict(written) and not found.left_out
    assert len(queries([str(tmp_path / "zoo")], [])) == sum(count for _, count in written)


def test_what_cannot_be_decoded_is_counted_and_named(tmp_path: Path) -> None:
    files = classes() | {"ash/a.heic": b"....ftypheic....", "elm/b.HEIC": b"", "elm/video.mp4": b"x", "elm/notes": b"x"}
    for make in HOLDERS.values():
        found = find(str(make(tmp_path / make.__name__, files)))
        assert counted(found)[""] == dict.fromkeys(CLASSES, 2)
        said = left(found)
        assert "2 .heic files, such as " in said and "ash/a.heic: cannot be decoded here: type pip install pil" in said
        assert "1 .mp4 file, " in said and "1 file without ending, " in said


def test_a_plugin_brings_its_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = types.ModuleType("pillow_heif")
    kind = type("Heif", (ImageFile.ImageFile,), {})
    plugin.register_heif_opener = lambda: Image.register_open("HEIF", kind)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    assert "HEIF" not in formats.FORMATS and "HEIF" in formats._formats()


def test_formats_that_pillow_only_recognises_are_none() -> None:
    assert not {"HDF5", "GRIB", "BUFR", "MPEG"} & set(formats.FORMATS)
    assert not {".h5", ".hdf", ".mpg", ".grib"} & formats.ENDINGS


# ---- layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (
            "train",
            "train Train TRAINING trn base Base_classes meta-train metatrain trainset 01_train train2017 TrainData",
        ),
        ("train", "images_train train-images trainval meta_training seen images_background"),
        ("val", "val valid Validation dev VAL meta-val val_set novel_val valset validation_images development"),
        ("test", "test Testing TST eval evaluation novel meta-test test-images test_set NovelClasses unseen"),
        (
            None,
            "cat retrain contest valley detrain testudo trains basement novelty device 7 evaluate traintest test_val",
        ),
    ],
)
def test_what_a_split_may_be_called(part: str | None, names: str) -> None:
    assert {name: part_of(name) for name in names.split()} == dict.fromkeys(names.split(), part)


JUNK = {
    "README.md": b"#", "Thumbs.db": b"x", "desktop.ini": b"x", ".DS_Store": b"x", "__MACOSX/ash/._0.png": b"x",
    ".ipynb_checkpoints/0.png": picture(), "@eaDir/ash/SYNOPHOTO_THUMB_XL.jpg": picture("JPEG"),
}  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("inside", ["", "data/", "a/b c/", "train/", "a/b/c/d/"])
def test_wrappers_junk_and_empty_folders_mean_nothing(tmp_path: Path, holder: str, inside: str) -> None:
    files = classes(inside=inside) | JUNK | {f"{inside}{name}": content for name, content in JUNK.items()}
    files |= {"package.json": b'{"size": 3, "name": "x"}', f"{inside}sizes.csv": b"image,width\n7,8\n"}
    files |= {f"{inside}empty": b"/", f"{inside}elm/.ipynb_checkpoints/0.png": picture()}
    found = find(str(HOLDERS[holder](tmp_path / "it", files)))
    assert counted(found) == {"": dict.fromkeys(CLASSES, 2)}
    assert found.reading.startswith("class folders") and found.reading.endswith("; 3 classes")
    assert (inside.rstrip("/") in found.reading) == bool(inside) or not inside
    said = left(found)
    assert "empty: without pictures" in said and "hidden file" in said and "README.md" in said


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize(
    "names",
    [("Train", "Val", "Test"), ("base", "val", "novel"), ("meta_train", "meta_val", "meta_test"), ("TRN", "EVAL")],
)
@pytest.mark.parametrize("inside", ["", "set/images/"])
def test_split_folders_are_known_by_their_names(
    tmp_path: Path, holder: str, names: tuple[str, ...], inside: str
) -> None:
    files: Files = {"README.txt": b"x"}
    for name in names:
        files |= classes(f"{name}1", f"{name}2", inside=f"{inside}{name}/")
    found = find(str(HOLDERS[holder](tmp_path / "it", files)))
    parts = ("train", "val", "test") if len(names) == 3 else ("train", "test")
    assert counted(found) == {part: {f"{name}1": 2, f"{name}2": 2} for part, name in zip(parts, names, strict=True)}
    assert found.reading.startswith(f"split folders {', '.join(names)}")


def test_archives_in_a_folder_stand_for_folders(tmp_path: Path) -> None:
    for name, make in (("train", zipped), ("test", tarred("gz"))):
        make(tmp_path / name, classes(f"{name}1", f"{name}2", inside=f"{name}/"))
    put(tmp_path, {"README.md": b"#"})
    found = find(str(tmp_path))
    assert counted(found) == {part: {f"{part}1": 2, f"{part}2": 2} for part in ("train", "test")}
    assert find(str(tmp_path / "test.tar.gz")).groups[""].keys() == {"test1", "test2"}


def test_names_of_splits_that_are_classes(tmp_path: Path) -> None:
    assert counted(find(str(put(tmp_path / "a", classes("train", "bus", "car")))))[""].keys() == {"train", "bus", "car"}
    assert counted(find(str(put(tmp_path / "b", classes("base", "novel", "poem")))))[""].keys() == {
        "base",
        "novel",
        "poem",
    }


def test_the_same_classes_in_all_splits_get_an_advice_that_works(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(6)]
    root = put(tmp_path / "it", classes(*names, inside="train/") | classes(*names, inside="test/"))
    with pytest.raises(UserError, match=f"train and test both have c0.*\n.*type data.root={root}/train") as caught:
        find(str(root))
    assert "val" not in str(caught.value)
    assert counted(find(f"{root}/train"))[""].keys() == set(names)


# ---- links, devices, hostile archives -------------------------------------------------------------------------------


def test_links_are_followed_and_circles_broken(tmp_path: Path) -> None:
    real = put(tmp_path / "real", classes(*CLASSES, "oak"))
    zoo = tmp_path / "zoo"
    for name in ("elm", "oak", "ash"):
        (zoo / name).mkdir(parents=True)
    (zoo / "beech").symlink_to(real / "beech")
    (zoo / "elm" / "all").symlink_to(real / "elm")
    for i in range(2):
        (zoo / "ash" / f"{i}.png").symlink_to(real / "ash" / f"{i}.png")
    put(zoo, {"oak/0.png": picture()})
    (zoo / "oak" / "up").symlink_to(zoo)
    (zoo / "oak" / "root").symlink_to("/")
    (zoo / "oak" / "self").symlink_to(zoo / "oak" / "self")
    (zoo / "oak" / "gone.png").symlink_to(tmp_path / "nowhere")
    found = find(str(zoo))
    assert counted(found)[""] == {"ash": 2, "beech": 2, "elm": 2, "oak": 1}
    assert "4 files or folders, such as " in left(found)


def test_links_that_multiply_end(tmp_path: Path) -> None:
    """Twenty folders, each with two links to the next: a million ways to the last one."""
    for i in range(20):
        put(tmp_path / f"d{i}", {"0.png": picture()})
        if i:
            for name in "ab":
                (tmp_path / f"d{i - 1}" / name).symlink_to(tmp_path / f"d{i}")
    assert len(find(str(tmp_path)).groups[""]) == 20


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_only_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put(tmp_path / "it", classes() | {"ash/large.png": picture() + bytes(5000)})
    os.mkfifo(root / "ash" / "pipe.png")
    (root / "ash" / "zero.png").symlink_to("/dev/zero")
    (root / "elm" / "zero").symlink_to("/dev/zero")
    monkeypatch.setattr(places, "LARGEST", 4000)
    monkeypatch.setattr(places, "PICTURE", 4000)
    found = find(str(root))
    assert counted(found)[""] == dict.fromkeys(CLASSES, 2) and "4 files or folders, such as" in left(found)
    for name in ("ash/pipe.png", "ash/zero.png", "ash/large.png"):
        with pytest.raises(OSError, match="no regular file|larger than"):
            places.read_regular(root / name)
    for path in (root / "ash" / "pipe.png", Path("/dev/zero")):
        with pytest.raises(UserError, match="is no regular file"):
            find(str(path))
        with pytest.raises(UserError, match="is no regular file"):
            queries([str(path)], [])
    put(root, {"list.csv": b"file,label\nash/pipe.png,a\nash/0.png,b"})
    with pytest.raises(UserError, match=r"line 2: .*pipe\.png is missing"):
        find(str(root / "list.csv"))


def members(path: Path, files: Iterable[tuple[str, bytes, str, str]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, kind, target, content in files:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            data = picture() if content else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_tar_leads_nowhere(tmp_path: Path) -> None:
    files = [(f"{name}/0.png", tarfile.REGTYPE, "", "x") for name in CLASSES]
    files += [
        ("../out.png", tarfile.REGTYPE, "", "x"),
        ("ash/../../out.png", tarfile.REGTYPE, "", "x"),
        ("ash/hard.png", tarfile.LNKTYPE, "elm/0.png", ""),
        ("ash/soft.png", tarfile.SYMTYPE, "../elm/0.png", ""),
        ("ash/passwd.png", tarfile.SYMTYPE, "/etc/passwd", ""),
        ("ash/round.png", tarfile.SYMTYPE, "round.png", ""),
        ("ash/device.png", tarfile.CHRTYPE, "", ""),
        ("/elm/absolute.png", tarfile.REGTYPE, "", "x"),
    ]
    before = set(tmp_path.parent.rglob("*.png"))
    found = find(str(members(tmp_path / "it.tar", files)))
    assert counted(found)[""] == {"ash": 3, "beech": 1, "elm": 2}
    assert "5 files or folders, such as " in left(found) and set(tmp_path.parent.rglob("*.png")) == before


@pytest.mark.parametrize("holder", ["zip", "tar gz"])
def test_an_archive_may_not_swell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: str) -> None:
    monkeypatch.setattr(archives, "LEAST", 1000)
    bomb = HOLDERS[holder](tmp_path / "it", {} if holder == "zip" else {"a/0.png": bytes(1 << 20)})
    if holder == "zip":
        with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/0.png", bytes(1 << 20))
    with pytest.raises(UserError, match="unpacks to more than"):
        find(str(bomb))


def test_a_member_of_a_zip_is_read_as_far_as_it_says(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "it", classes())
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ash/lie.png", bytes(1 << 20))
    bomb.write_bytes(bomb.read_bytes().replace(struct.pack("<I", 1 << 20), struct.pack("<I", 999)))
    [lie] = [each for each in find(str(bomb)).groups[""]["ash"] if each.stamp[1] == 999]
    tracemalloc.start()
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC"):
        lie.file.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18


@pytest.mark.parametrize("holder", ["folder", "zip"])
def test_what_is_too_deep_or_too_large_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: str
) -> None:
    monkeypatch.setattr(places, "PICTURE", 4000)
    monkeypatch.setattr(tables, "LARGEST", 4000)
    deep = "/".join(["d"] * 60)
    odd = {f"{deep}/0.png": picture(), "ash/large.png": picture() + bytes(5000), "list.csv": b"file,label\n" * 500}
    found = find(str(HOLDERS[holder](tmp_path / "it", classes() | odd)))
    assert counted(found)[""] == dict.fromkeys(CLASSES, 2)
    assert len([line for line in found.left_out if "3 files or folders, such as " in line or "list.csv" in line]) == 1
    monkeypatch.setattr(tables, "LARGEST", 1 << 20)
    monkeypatch.setattr(tables, "MOST", 3)
    put(tmp_path, {"long.csv": b"file,label\n" + b"a,b\n" * 9})
    with pytest.raises(UserError, match="more than 3 rows"):
        find(str(tmp_path / "long.csv"))


def test_damaged_archives_are_one_message(tmp_path: Path) -> None:
    for holder in ("zip", "tar gz", "tar bz2", "tar xz"):
        whole = HOLDERS[holder](tmp_path / "it", classes())
        content = whole.read_bytes()
        whole.write_bytes(content[: len(content) // 3])
        with pytest.raises(UserError, match=r"it\.(zip|tar).*(no CSV, zip or tar|cannot be read)"):
            find(str(whole))
    plain = tarred("")(tmp_path / "it", classes())
    plain.write_bytes(plain.read_bytes()[:3072])  # between two members
    assert "may be cut short" in left(find(str(plain)))


# ---- what people see ------------------------------------------------------------------------------------------------


def test_info_says_how_the_files_were_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {"Train/ash/notes.txt": b"x"}
    for part in ("Train", "Val", "Test"):
        files |= classes(*(f"{part}{i}" for i in range(3)), inside=f"{part}/")
    root = put(tmp_path / "it", files)
    for _ in range(2):  # drawn, and from the cache
        run(["data", "info", "folder", f"root={root}", "size=8"])
        said = capsys.readouterr().out
        assert "read as        split folders Train, Val, Test; 9 classes: 3 train, 3 val, 3 test" in said
        assert (
            "left out       2 kinds of files" in said
            and f"1 .txt file, {root}/Train/ash/notes.txt: no pictures" in said
        )
        assert f"1 folder, {root}/Train/ash: without pictures" in said
