"""A thousand command lines and damaged files drawn by a seed: each ends well, or in one message with nothing left.

A failure prints the words, and the seed and number that drew them.
"""

from __future__ import annotations

import faulthandler
import importlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

from fsl_cli.cli import main
from fsl_cli.settings.compose import compose
from fsl_cli.settings.registry import choices, dotted_keys

MADE = Path(__file__).parents[1] / "runs" / "made_by_0.1.0"
SECONDS = 10  # of the processor's time, so that a busy machine fails nothing
HANGS = 300  # of the clock: what waits for ever uses no processor
SMALL = [
    *("data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.size=8", "backbone.filters=2"),
    *("steps=1", "way=2", "shot=1", "val_every=1", "val_episodes=2", "episodes=2", "train_query=2", "query=2"),
    *("meta_batch=1", "trainer=cpu"),
]
VALUES = [
    *("", "0", "1", "-1", "2", "1e400", "nan", "inf", "-inf", "true", "null", "''", "[]", "{}", "[1,[2]]", "{a: 1}"),
    *(
        "'",
        '"',
        "[",
        "}",
        "(",
        "\\",
        "$",
        "${x}",
        "${oc.env:NOTHING}",
        "${now:}",
        "a=b",
        "a,b",
        "é",
        "\u202e",
        "\udcff",
    ),
    *("x" * 5000, "/dev/null", "/dev/zero", "/proc/self/mem", "10" * 20, "0x10", "1_000", "1e3", " ", "\n", "!!int x"),
    *(
        "range(0,3)",
        "choice(1,2)",
        "glob(*)",
        "interval(0,1)",
        "shuffle(1,2)",
        "~",
        "@",
        "*",
        "5-20",
        "[5,20]",
        "[20,5]",
    ),
    *("&a [*a]", "%s", "{0}", "it", "it.zip", "list.csv", "run", "18446744073709551616", "$$", "-m", "--", "0.5", "\t"),
]
GROUPS = ("algo", "data", "backbone", "optim", "schedule", "trainer", "augment", "logger")
SIZES = ("steps", "episodes", "val_episodes", "val_every", "time", "out", "data.cache", "resume", "meta_batch", "query",
         "train_query", "trainer.num_nodes")  # fmt: skip  # what may be large, or lie elsewhere, without being wrong
KEYS = """
test run way shot query episodes data algo open similarity norm checkpoint classes name trust seed
predict run support query add correct save out html unknown on_error trust algo backbone
try support backbone algo out on_error
export run to support format trust check
distill data images out split classes holdout layers
report rows columns to html runs latex
compare a b
show episode embedding steps run algo to index
config to algo data way
ls algo
data root split way out cache file_column label_column size
"""
OTHERS = {verb: keys for verb, *keys in map(str.split, KEYS.strip().splitlines())}
FILES = ["config.yaml", "training.json", "result.json", "classes.json", "episodes.csv", "metrics.csv", "overrides.txt",
         "environment.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"]  # fmt: skip


class TooLong(BaseException):
    """Nothing catches it."""


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, the same as a zip and a table, and a run."""
    importlib.import_module("matplotlib.font_manager")  # which looks through the machine's fonts for seconds
    place = tmp_path_factory.mktemp("fuzz")
    names = [f"k{c}/{i}.png" for c in range(6) for i in range(4)]
    with zipfile.ZipFile(place / "it.zip", "w") as archive:
        for number, name in enumerate(names):
            (place / "it" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "it" / name).write_bytes(picture(number))
            archive.writestr(name, picture(number))
    (place / "list.csv").write_text("file,label\n" + "".join(f"it/{name},{name[:2]}\n" for name in names))
    shutil.copytree(MADE, place / "run")
    return place


@pytest.fixture
def answer(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[list[str]], str]]:
    """Run a command line in a folder of its own; returns "" where it ended well, else what is wrong with its end."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)

    def run(words: list[str], folder: Path) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["fsl", *words])
        there = set(tmp_path.rglob("*"))
        capfd.readouterr()
        faulthandler.dump_traceback_later(HANGS, exit=True, file=sys.__stderr__)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        except TooLong:
            code = f"longer than {SECONDS} s"
        except BaseException as error:  # what Python would end in a traceback of its own
            code = f"raised {type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
        said = capfd.readouterr()
        new = set(tmp_path.rglob("*")) - there
        stores = [path.parent for path in new if path.name == "store.json"]  # whole data sets
        kept = {path for store in stores for path in (store, *store.parents, *store.iterdir())}
        left = sorted(str(path.relative_to(tmp_path)) for path in new - kept)
        wrong = []
        if code not in (0, 2):
            wrong.append(f"ended with {code}")
        if "Traceback" in said.err or "Warning:" in said.err:
            wrong.append("a traceback or a warning")
        if code == 2 and sum(line.startswith("fsl: ") for line in said.err.splitlines()) != 1:
            wrong.append("not one message")
        if code == 2 and left:
            wrong.append(f"left {left[:5]}")
        seen[str(code)] += 1
        return f"{'; '.join(wrong)}\n{said.err[-1500:]}" if wrong else ""

    seen = Counter[str]()
    yield run
    signal.signal(signal.SIGPROF, before)
    with capfd.disabled():
        print(f"\n{sum(seen.values())} command lines, by exit code: {dict(seen)}")


def settings_of(rng: random.Random) -> list[str]:
    algo = rng.choice([*choices("algo")])
    return [
        key
        for key in dotted_keys(compose([f"algo={algo}"]).values)
        if key not in SIZES and not key.endswith("_target_")
    ]


def word(rng: random.Random, key: str) -> str:
    prefix = rng.choice(["", "", "", "", "+", "++", "~"])
    value = rng.choice(VALUES)
    form = rng.random()
    if form < 0.05:
        return value
    return f"{prefix}{key}" if form < 0.1 else f"{prefix}{key}={value}"


def drawn(rng: random.Random) -> list[str]:
    """A command line, more or less wrong."""
    verb = rng.choice(["check", "check", "train", *OTHERS])
    if verb in ("check", "train"):
        group = rng.choice(GROUPS)
        groups = [f"{group}={rng.choice([*choices(group), *VALUES])}"] if rng.random() < 0.5 else []
        words = [word(rng, rng.choice([*settings_of(rng), "trust", "hydra.run.dir"])) for _ in range(rng.randint(1, 2))]
        return [verb, *(SMALL if verb == "train" else []), *(groups if verb == "check" else []), *words]
    words = [word(rng, rng.choice(OTHERS[verb])) for _ in range(rng.randint(0, 3))]
    first = {
        "test": ["run=run", "episodes=2"],
        "predict": [rng.choice(["run=run", "algo=protonet"]), "support=it", "query=it"],
        "try": ["support=it"],
        "export": ["run=run", "to=out/it.onnx"],
        "report": ["."],
        "compare": ["a=run", "b=run"],
        "config": ["to=my.yaml"],
        "data": ["info", "folder", "root=it"],
    }.get(verb, [])
    keep = [each for each in first if rng.random() < 0.8]
    return [verb, *keep, *words]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """A file as a disk, a copy or a stranger may leave it."""
    kind = rng.randrange(7)
    if kind == 0:
        return content[: rng.randrange(len(content) + 1)]
    if kind == 1:
        at = rng.randrange(len(content) + 1)
        return content[:at] + rng.randbytes(rng.choice([1, 8, 300])) + content[at:]
    if kind == 2:
        return rng.choice(
            [b"", b"\0", b"[]", b"{}", b"null", b"1", b'"a"', b"a,b\n", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"]
        )
    if kind == 3:
        flipped = bytearray(content)
        for _ in range(rng.choice([1, 5, 50])):
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
        return bytes(flipped)
    if kind == 4:
        return content * 3
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    if kind == 5:
        lines[at : at + 1] = [] if rng.random() < 0.5 else [lines[at], lines[at]]
        return b"\n".join(lines)
    key, colon, _ = lines[at].partition(b": ")
    lines[at] = key + colon + rng.choice(VALUES).encode(errors="surrogateescape") + b"," * content.startswith(b"{")
    return b"\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_any_command_line_ends_well_or_in_one_message(
    answer: Callable[..., str], place: Path, tmp_path: Path, seed: int
) -> None:
    rng, wrong = random.Random(seed), []
    for number in range(60):
        folder = Path(shutil.copytree(place, tmp_path / "here"))
        words = drawn(rng)
        if said := answer(words, folder):
            wrong.append(f"seed {seed}, number {number}: {words}\n{said}")
        os.chdir(tmp_path)
        shutil.rmtree(folder)
    assert not wrong, "\n\n".join([f"{len(wrong)} of 60", *wrong])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_any_damaged_file_ends_well_or_in_one_message(
    answer: Callable[..., str], place: Path, tmp_path: Path, seed: int
) -> None:
    rng, wrong = random.Random(f"damaged {seed}"), []
    for number in range(40):
        folder = Path(shutil.copytree(place, tmp_path / "here"))
        name = rng.choice([*(f"run/{each}" for each in FILES), *["it.zip", "list.csv", "it/k0/0.png"] * 2])
        (folder / name).write_bytes(damaged(rng, (folder / name).read_bytes()))
        if name.startswith("run"):
            if rng.random() < 0.3:
                (folder / "run" / "training.json").unlink(missing_ok=True)
            words = rng.choice(
                ["test run=run episodes=2", "report run", "compare a=run b=run", "predict run=run support=it query=it"]
                + ["export run=run to=out/it.onnx", "train resume=run", "show steps run=run", "show embedding run=run"]
            ).split()
        else:
            root = name.partition("/")[0]
            words = rng.choice(
                [f"data info folder root={root} cache=cache size=8", f"predict run=run support={root} query=it"]
                + [f"predict run=run support=it query={root}", f"check data=folder data.root={root} data.cache=cache"]
                + [f"predict run=run support=it query=it correct={root}"]
            ).split()
        if said := answer(words, folder):
            wrong.append(f"seed {seed}, number {number}: {name} damaged, {words}\n{said}")
        os.chdir(tmp_path)
        shutil.rmtree(folder)
    assert not wrong, "\n\n".join([f"{len(wrong)} of 40", *wrong])
