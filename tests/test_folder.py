"""Your own images: what counts, how it is cut, how the classes are divided, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsl_cli.data.sources import folder as module
from fsl_cli.data.sources.folder import folder
from fsl_cli.data.store import DataSet
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


def opened(root: Path, **choices: float) -> DataSet:
    return folder(str(root), cache=str(root.parent / "cache"), **{"size": 8, "channels": 1, **choices})  # type: ignore[arg-type]


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
    ("count", "val", "test", "sizes"), [(3, 0.2, 0.2, (1, 1, 1)), (3, 0.5, 0.49, (1, 1, 1)), (10, 0.3, 0.1, (6, 3, 1))]
)
def test_each_split_gets_its_share_and_at_least_one(
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
        patch.setattr(module, "_decode", lambda *_: pytest.fail("decoded again"))
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
        (["a/1.png", "b/1.png"], ["2 classes (a, b) cannot be divided", "to 3 or more"]),
        (["a/1.png", "b/1.txt", "c/.1.png"], ["zoo/b has no images", "zoo/c has no images", ".png"]),
        (["train/a/1.png"], ["zoo/test is missing"]),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png", "valid/d/1.png"], ["zoo/valid is none of train, val and"]),
        (["train/1.png", "test/c/1.png"], ["zoo/train has 1 images but no class folders"]),
        (["train/a/1.png", "test/b/1.png"], ["1 classes (a) cannot be divided among train, val", "to 2 or more"]),
        (["train/a/1.png", "train/b/1.png", "test/b/1.png"], ["train and test both have b: keep a class in one split"]),
        ([f"train/{c}/1.png" for c in "ab"] + [f"val/{c}/1.png" for c in "ab"], ["both have a, b", "test is missing"]),
        ([f"c{number:02d}/1.txt" for number in range(12)], ["zoo/c09 has no images", "and 2 more"]),
    ],
)
def test_folders_that_are_no_data_set(tmp_path: Path, files: list[str], messages: list[str]) -> None:
    root = tmp_path / "zoo"
    root.mkdir()
    for name in files:
        paint(root / name) if name.endswith("png") else zoo(root).joinpath(name).parent.mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        opened(root)
    for message in messages:
        assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 12


@pytest.mark.parametrize(
    ("root", "message"),
    [(None, "type data.root=ROOT"), ("nowhere", "data.root=nowhere does not exist"), (__file__, "is a file")],
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
    for message in ("a/text.png: it is no image", "b/empty.jpg", "c/cut.png: ", "Delete them"):
        assert message in str(caught.value)
    assert "1.png" not in str(caught.value) and not list((tmp_path / "cache").iterdir())
