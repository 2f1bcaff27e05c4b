"""fsl data: preparing once, whoever else is at it; damage; what info counts; what show draws."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fsl_cli.data.store
from fsl_cli.cli import run
from fsl_cli.data import inspection
from fsl_cli.data.sampler import Shape
from fsl_cli.data.store import DataSet, Images, Split, open_store
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.errors import UserError
from fsl_cli.pictures import episodes, terminal

GLYPHS = ("glyphs", "train_classes=12", "val_classes=6", "data.test_classes=6", "drawings=4", "size=8")
Fsl = Callable[..., str]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "fsl"


@pytest.fixture
def fsl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fsl:
    """Run `fsl data ...` in an empty folder with a cache of its own; what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def data(*words: str) -> str:
        capsys.readouterr()
        run(["data", *words])
        return capsys.readouterr().out

    return data


# ---- preparing ------------------------------------------------------------------------------------------------------


def test_prepare_builds_once_and_ls_shows_it(fsl: Fsl, cache: Path) -> None:
    first = fsl("prepare", *GLYPHS)
    [store] = cache.iterdir()
    assert "glyphs is prepared: 24 classes, 96 images of 8 x 8 x 1" in first
    assert re.search(r"took [\d.]+ s, .*6 kB on disk", first)
    assert first.endswith(f"{store}\n")
    before = (store / "store.json").stat()
    assert "glyphs is prepared already" in fsl("prepare", *GLYPHS)
    assert (store / "store.json").stat() == before
    listed = re.findall(r"prepared: 24 classes, 96 images of 8 x 8 x 1, .* kB   (\S+)", fsl("ls"))
    assert listed == [str(store)]
    assert fsl("verify", "glyphs") == f"whole  {store}\n"
    assert "Nothing is prepared" in fsl("ls", "cache=elsewhere")


def test_ls_and_verify_are_quick(fsl: Fsl, tmp_path: Path) -> None:
    fsl("prepare", *GLYPHS)
    for words in (["ls"], ["verify", "glyphs"]):
        code = (
            f"import sys; from fsl_cli.cli import run; run({['data', *words]!r})\n"
            "heavy = {'torch', 'pytorch_lightning', 'hydra'} & set(sys.modules)\nassert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "cache" / "fsl" / "glyphs-") in done.stdout


def test_a_store_of_two_data_sets_is_shown_with_both(fsl: Fsl, cache: Path) -> None:
    a_store(cache, "cifar100")
    a_store(cache, "mine")
    lines = fsl("ls").splitlines()
    above = [line for line, next_line in zip(lines, lines[1:], strict=False) if "prepared: " in next_line]
    assert [line.split()[0] for line in above] == ["cifar_fs", "fc100", "mine"]
    assert "whole" in fsl("verify", "fc100")


def test_a_damaged_store_is_found_and_built_again(fsl: Fsl, cache: Path) -> None:
    fsl("prepare", *GLYPHS)
    fsl("prepare", "glyphs", "seed=1", "size=8", "train_classes=9")
    whole = {path: (path / "images.bin").read_bytes() for path in cache.iterdir()}
    store = next(path for path in whole if len(whole[path]) == 24 * 4 * 64)
    (store / "images.bin").write_bytes(whole[store][:-1] + bytes([whole[store][-1] ^ 1]))
    with pytest.raises(UserError) as error:
        fsl("verify", "glyphs")
    assert "glyphs: 1 damaged of 2 prepared. What opens one next builds it again:\n" in str(error.value)
    assert f"\n  {store}: its images have the hash" in str(error.value)
    assert "damaged, will be built again" in fsl("ls")
    again = fsl("prepare", *GLYPHS)
    assert f"{store} cannot be used (fsl data verify found" in again
    assert "glyphs is prepared: " in again
    assert {path: (path / "images.bin").read_bytes() for path in cache.iterdir()} == whole
    assert fsl("verify", "glyphs").count("whole") == 2
    (store / "store.json").write_text("[]")
    assert "unusable (store.json is not of a store)" in fsl("ls")
    with pytest.raises(UserError, match="store.json is not of a store"):
        fsl("verify", "glyphs")


def images(value: int, count: int = 2) -> Images:
    return np.full((count, 1, 2, 2), value, dtype=np.uint8)


def a_store(cache: Path, name: str) -> Any:
    return open_store(cache, name, {}, lambda: [("a", images(0)), ("b", images(1))])


def test_a_damaged_store_stays_until_the_next_is_whole(cache: Path) -> None:
    a_store(cache, "it")
    [store] = cache.iterdir()
    (store / fsl_cli.data.store.DAMAGED).touch()

    def gone() -> Iterable[tuple[str, Images]]:
        yield "a", images(0)
        raise UserError("the copy is gone")

    with pytest.raises(UserError, match="the copy is gone"):
        open_store(cache, "it", {}, gone)
    assert list(cache.iterdir()) == [store]
    assert (store / "images.bin").stat().st_size == 16


def test_the_second_process_waits_and_opens(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In threads: a lock is of the file opened, so they keep each other out as processes do."""
    drawing, waiting, said, stores = Event(), Event(), [], []

    def say(text: str, **more: Any) -> None:
        said.append((text, more["file"]))
        waiting.set()

    monkeypatch.setattr(fsl_cli.data.store, "print", say, raising=False)

    def slow() -> Iterable[tuple[str, Images]]:
        drawing.set()
        assert waiting.wait(10)
        yield "a", images(7)

    def never() -> Iterable[tuple[str, Images]]:
        raise AssertionError("drawn twice")

    first = Thread(target=lambda: stores.append(open_store(cache, "it", {}, slow)))
    first.start()
    assert drawing.wait(10)
    second = Thread(target=lambda: stores.append(open_store(cache, "it", {}, never)))
    second.start()
    first.join()
    second.join()
    assert [store.images.max() for store in stores] == [7, 7]
    assert said == [(f"Another process is preparing it in {cache}; waiting for it.", sys.stderr)]
    assert [path.name[:3] for path in cache.iterdir()] == ["it-"]


def test_a_killed_one_leaves_nothing_that_stays(cache: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from fsl_cli.data.store import open_store\n"
        "def classes():\n"
        "    yield 'a', np.zeros((2, 1, 2, 2), np.uint8)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_store(Path(sys.argv[1]), 'it', {}, classes)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(cache)]).returncode == -9
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")], "half a store is there"
    (cache / ".it-else-abcdefgh").mkdir()  # of another data set
    a_store(cache, "it")
    assert sorted(path.name[:9] for path in cache.iterdir()) == sorted([".it-else-", a_folder(cache).name[:9]])


def a_folder(cache: Path) -> Path:
    return next(path for path in cache.iterdir() if not path.name.startswith("."))


@pytest.mark.slow
@pytest.mark.alone  # both must be at it at the same time
def test_two_commands_at_once_build_once(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "fsl_cli", "data", "prepare", "glyphs", "train_classes=4000"]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [path.name[:7] for path in (tmp_path / "fsl").iterdir()] == ["glyphs-"]
    assert sum("is prepared" in out for out, _ in said) == 2
    assert sum("Another process is preparing glyphs" in err for _, err in said) == 1


# ---- bad words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], ["does what?", "ls, prepare, info, show, verify"]),
        (["prepre"], ["no 'fsl data prepre'", "Did you mean prepare?"]),
        (["prepare"], ["Which data set?", "glyphs"]),
        (["info", "--json"], ["Which data set?"]),
        (["info", "omniglott"], ["no data set 'omniglott'", "Did you mean omniglot?", "glyphs"]),
        (["prepare", "glyphs", "drawing=3"], ["'data.drawing'", "Did you mean data.drawings?"]),
        (["prepare", "glyphs", "drawings=many"], ["data.drawings=many", "a whole number"]),
        (["prepare", "glyphs", "28"], ["28", "key=value"]),
        (["ls", "glyphs"], ["cache=FOLDER", "'glyphs'"]),
        (["verify", "glyphs", "size=28"], ["cache=FOLDER", "'size=28'"]),
        (["verify", "glyphs"], ["glyphs is not prepared", "fsl data prepare glyphs"]),
        (["show", *GLYPHS, "split=tets"], ["split=tets", "train, val, test"]),
        (["show", *GLYPHS, "way=0"], ["way=0", "at least 1"]),
        (["show", *GLYPHS, "seed=x"], ["seed=x", "at least 0"]),
        (["show", *GLYPHS, "out=it.jpg"], ["out=it.jpg", "out=it.png"]),
        (["show", *GLYPHS, "query=2", "out=no/it.png"], ["no/it.png cannot be written", "out=FILE.png"]),
        (["show", *GLYPHS, "way=13", "query=9"], ["way=13 needs 13 classes", "Try way=12.", "Try query=3."]),
        (["show", *GLYPHS, "query=1", "episodes=999"], ["inches", "fewer episodes"]),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_bad_words(fsl: Fsl, tmp_path: Path, words: list[str], says: list[str]) -> None:
    with pytest.raises(UserError) as error:
        fsl(*words)
    assert not [text for text in says if text not in str(error.value)], error.value
    assert "train_way" not in str(error.value)  # which fsl data does not take
    assert not list(tmp_path.rglob("*.png"))


# ---- info -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def odd_data(cache: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """Five classes of known counts, with the same image in two splits, in two classes of one, and twice in one."""
    monkeypatch.setattr(inspection, "BLOCK", 20)  # five images of four bytes at a time
    different = iter(range(256))

    def some(*values: int | None) -> Images:
        return np.concatenate([images(next(different) if value is None else value, 1) for value in values])

    classes = {
        "a": some(None, None, 200),
        "b": some(None, 201, 201),
        "c": some(202, None, None),
        "d": some(200, None, 202, None),
        "e": some(200, 203, 203),  # in no split
    }
    store = open_store(cache, "odd", {"skipped": ["f.jpg: it is no image"]}, lambda: classes.items())
    splits = {"train": Split(np.array([0, 1, 2]), 4), "val": Split(np.array([3])), "test": Split(np.array([], int))}
    return DataSet("odd", store, splits, {"split": "x", "split_hash": "0", "rotations": "train"})


def test_info_counts_images_classes_and_duplicates(odd_data: DataSet) -> None:
    found = inspection.summary(odd_data)
    assert (found["classes"], found["images"], found["shape"]) == (5, 16, [1, 2, 2])
    assert found["splits"]["train"] == {"classes": 3, "turns": 4, "images": 9, "min": 3, "median": 3.0, "max": 3}
    assert found["splits"]["test"] == {"classes": 0, "turns": 1, "images": 0, "min": 0, "median": 0, "max": 0}
    assert found["odd_classes"] == {"d": 4}
    assert found["skipped"] == ["f.jpg: it is no image"]
    across = [
        [(place["split"], place["class"], place["image"]) for place in g] for g in found["duplicates_across_splits"]
    ]
    within = [
        [(place["split"], place["class"], place["image"]) for place in g] for g in found["duplicates_within_a_split"]
    ]
    assert across == [[("train", "a", 2), ("val", "d", 0)], [("train", "c", 0), ("val", "d", 2)]]
    assert within == [[("train", "b", 1), ("train", "b", 2)]]


@pytest.mark.parametrize(
    ("sizes", "odd"),
    [
        ([600] * 9 + [599], {"9": 599}),
        ([20, 20, 20], {}),
        ([41, 50, 60, 55, 48], {}),
        ([10, 41, 50, 60, 130], {"0": 10, "4": 130}),
    ],
)
def test_odd_classes(sizes: list[int], odd: dict[str, int]) -> None:
    assert inspection._odd([str(i) for i in range(len(sizes))], np.array(sizes)) == odd


def test_info_for_people_and_for_scripts(fsl: Fsl, cache: Path) -> None:
    fsl("prepare", *GLYPHS)
    (a_folder(cache) / fsl_cli.data.store.DAMAGED).touch()  # what is said of that must not come among the JSON
    found = json.loads(fsl("info", *GLYPHS, "--json"))
    assert (found["name"], found["classes"], found["splits"]["train"]["images"]) == ("glyphs", 24, 48)
    assert found["duplicates_across_splits"] == []
    shown = fsl("info", *GLYPHS)
    assert f"({found['split_hash']})" in shown
    assert f"hash {found['hash']}" in shown
    assert "  train        12 classes, 48 images; images of a class: min 4, median 4, max 4" in shown
    assert "duplicates     ACROSS SPLITS: none" in shown


def test_info_marks_what_splits_share(odd_data: DataSet) -> None:
    from fsl_cli.pictures.data_lines import info_lines

    shown = "\n".join(info_lines(inspection.summary(odd_data)))
    assert "ACROSS SPLITS: 2 images occur 4 times, 2 of them in several classes: the splits share" in shown
    assert "  train/a no. 2 = val/d no. 0" in shown
    assert "within a split: 1 images occur 2 times, 0 of them in several classes" in shown
    assert "3 classes, 12 with their quarter turns, 9 images" in shown
    assert "skipped files  1\n  f.jpg: it is no image" in shown


# ---- show -----------------------------------------------------------------------------------------------------------


def test_show_writes_a_picture(fsl: Fsl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITTY_WINDOW_ID", "1")
    monkeypatch.delenv("TMUX", raising=False)
    assert fsl("show", *GLYPHS, "query=2", "split=val") == "glyphs-val.png\n"  # no escape codes: nobody looks
    fsl("show", *GLYPHS, "query=2", "split=val", "out=it.png", "seed=1", "data.seed=3")
    with Image.open("glyphs-val.png") as one, Image.open("it.png") as other:
        assert one.format == other.format == "PNG"
        assert min(one.size) > 300
        assert one.tobytes() != other.tobytes()


def test_show_draws_what_training_sees(odd_data: DataSet, cache: Path) -> None:
    rng = np.random.default_rng(0)
    classes = [(name, rng.integers(256, size=(6, 3, 5, 5), dtype=np.uint8)) for name in "abcd"]
    store = open_store(cache, "show", {}, lambda: classes)
    data = odd_data._replace(store=store, splits={"train": Split(np.arange(4), 4)})
    tasks = ImageTasks(data, {"train": Shape(3, 2, 3)}, 3)
    drawn = tasks.samplers["train"].episode(0, "train", 7)
    [seen] = tasks.gather(Batch("train", 0, [7]), torch.device("cpu"))
    canvas = episodes.canvas(data, "train", drawn)
    for label in range(3):
        column = canvas[:, 6 * label : 6 * label + 5]
        rows = [column[top : top + 5] for top in (0, 6, 13, 19, 25)]  # a wider gap before the queries
        wanted = torch.cat([seen.support.x[0, 2 * label :][:2], seen.query.x[0, 3 * label :][:3]]) * 255
        assert np.array_equal(rows, wanted.round().byte().permute(0, 2, 3, 1).numpy())
    turns = [f"turned {90 * (number % 4)}°" for number in drawn.classes]
    names = ["abcd"[number // 4] for number in drawn.classes]
    shown = episodes.class_names(data, "train", drawn.classes)
    assert shown == [f"{n}\n{t}" for n, t in zip(names, turns, strict=True)]


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1", "TERM": "xterm-256color"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, ""),
        ({"KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux"}, ""),
        ({"TERM_PROGRAM": "WezTerm", "TERM": "screen-256color"}, ""),
        ({}, ""),
    ],
)
def test_terminals_that_show_pictures(environment: dict[str, str], protocol: str) -> None:
    assert terminal.protocol(environment) == protocol


def test_pictures_as_terminals_take_them() -> None:
    png = bytes(range(256)) * 40
    parts = re.findall("\033_G([^;]*);([^\033]*)\033\\\\", terminal._escape("kitty", png))
    assert base64.b64decode("".join(text for _, text in parts)) == png
    assert max(len(text) for _, text in parts) <= 4096
    assert [keys for keys, _ in parts] == ["a=T,f=100,m=1", "m=1", "m=1", "m=0"]
    [(size, text)] = re.findall("\033]1337;File=inline=1;size=(\\d+):([^\a]*)\a", terminal._escape("iterm", png))
    assert int(size) == len(png)
    assert base64.b64decode(text) == png
    assert terminal._escape("", png) == ""
