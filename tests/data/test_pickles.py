"""Pickles of data are read, from every protocol and from Python 2; anything else is refused, and does not run."""

from __future__ import annotations

import os
import pickle
import struct
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsl_cli.data.pickles import read_pickle
from fsl_cli.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3), np.uint8)  # over 4096 bytes: stays in the file


def python2(value: Any) -> bytes:
    """What cPickle.dumps(value, 2) of Python 2 with NumPy 1 wrote, without its memo and the protocol's number."""
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str | bytes):
        text = value.encode() if isinstance(value, str) else value
        return (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))) + text
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(each) for pair in value.items() for each in pair) + b"u"
    assert isinstance(value, np.ndarray)
    kind = b"cnumpy\ndtype\n" + python2((value.dtype.str[1:], 0, 1)) + b"R"
    kind += python2((3, "<", None, None, None, -1, -1, 0)) + b"b"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + python2((0,)) + python2("b") + b"tR"
    return made + b"(" + python2(1) + python2(value.shape) + kind + python2(False) + python2(value.tobytes()) + b"tb"


def written(folder: Path, content: bytes) -> Path:
    (folder / "it.pkl").write_bytes(content)
    return folder / "it.pkl"


def written2(folder: Path, value: Any) -> Path:
    return written(folder, b"\x80\x02" + python2(value) + b".")


@pytest.mark.parametrize("protocol", range(6))
def test_data_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    data = {
        "image_data": IMAGES,
        "class_dict": {"n01532829": [0, 1, 2**40], "é": []},
        "more": [np.asfortranarray(IMAGES[0, :, :, 0]), np.arange(3), np.array(["a", "bc"]), np.array([True])],
        "bytes": [b"", b"x"],
        "pngs": np.array([np.arange(3, dtype=np.uint8), np.arange(4, dtype=np.uint8)], dtype=object),
        "same": [IMAGES, IMAGES],
        "long": bytes(5000),
        "rest": (1, -2.5, None, True),
    }
    got = read_pickle(written(tmp_path, pickle.dumps(data, protocol)))
    assert np.array_equal(got["image_data"], IMAGES) and got["image_data"].dtype == np.uint8
    assert got["class_dict"] == data["class_dict"] and got["rest"] == data["rest"]
    assert got["bytes"] == data["bytes"]
    for one, other in zip(got["more"], data["more"], strict=True):
        assert np.array_equal(one, other) and type(one) is type(other)
    assert [each.tolist() for each in got["pngs"]] == [[0, 1, 2], [0, 1, 2, 3]]
    assert np.array_equal(got["same"][1], IMAGES) and bytes(got["long"]) == bytes(5000)


def test_data_of_python_2(tmp_path: Path) -> None:
    data = {"image_data": IMAGES, "class_dict": {"n01532829": [0, 1]}, "labels": np.arange(5, dtype=np.int32)}
    got = read_pickle(written2(tmp_path, data))
    assert got.keys() == data.keys() and got["class_dict"] == data["class_dict"]
    assert np.array_equal(got["image_data"], IMAGES) and got["labels"].tolist() == [0, 1, 2, 3, 4]


def test_large_arrays_stay_in_the_file(tmp_path: Path) -> None:
    for size in (5000, 1 << 20):  # pickle protocol 4 puts the small ones together into frames
        data = [np.full(size, i, np.uint8) for i in range(3)]
        for content in (b"\x80\x02" + python2(data) + b".", *(pickle.dumps(data, protocol) for protocol in (3, 4))):
            for got, wanted in zip(read_pickle(written(tmp_path, content)), data, strict=True):
                assert np.array_equal(got, wanted) and not got.flags.writeable
                while isinstance(got, np.ndarray):
                    got = got.base
                assert isinstance(got.obj, mmap)


class Evil:
    def __init__(self, what: Any, *words: Any) -> None:
        self.call = (what, words)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"image_data": [it]}], ids=["bare", "inside"])
def test_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int, wrap: Any) -> None:
    trap = tmp_path / "trap"
    for evil in (Evil(os.mkdir, str(trap)), Evil(eval, f"__import__('os').mkdir({str(trap)!r})")):
        path = written(tmp_path, pickle.dumps(wrap(evil), protocol))
        with pytest.raises(UserError, match=r"was not read: it holds \w+\.(mkdir|eval)"):
            read_pickle(path)
        assert not trap.exists()


HEAD = b"\x80\x02"
NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
OBJECT = b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
TRICKS = {
    "pointers as objects": HEAD + NDARRAY + b"(K\x01(K\x01t" + OBJECT + b"\x89U\x08AAAAAAAAtb.",
    "a structure": HEAD + b"cnumpy\ndtype\n(U\x03V16K\x00K\x01tR.",
    "a state for a class": HEAD + b"cnumpy\nndarray\n(N}U\x03setU\x01xstb.",
    "a state that is an attribute": HEAD + NDARRAY + b"(N}U\x05valueU\x01xstb.",
    "a state for a dict": HEAD + b"}}b.",
    "a state for a function": HEAD + b"c_codecs\nencode\n}b.",
    "a function itself": HEAD + b"c_codecs\nencode\n.",
    "another codec": HEAD + b"c_codecs\nencode\n(U\x01xX\x05\x00\x00\x00rot13tR.",
    "an extension": HEAD + b"\x82\x01.",
    "a persistent number": HEAD + b"U\x01xQ.",
    "a set": b"\x80\x04\x8f.",
    "an instance": b"(ios\nsystem\n.",
    "a class of ours": HEAD + b"cfsl_cli.data.pickles\n_Reader\n.",
    "a list in itself": HEAD + b"]q\x00h\x00a.",
    "a list called over and over": HEAD
    + b"c__builtin__\nxrange\n(J\x00\x00\x40\x00tRq\x00]("
    + b"c__builtin__\nlist\n(h\x00tR" * 9
    + b"e.",
    "a list called in another way": HEAD
    + b"c__builtin__\nxrange\n(J\x00\x00\x40\x00tRq\x00]("
    + b"(h\x00i__builtin__\nlist\n" * 9
    + b"e.",
    "nothing": b"",
    "text": b"hello",
    "half": pickle.dumps([IMAGES])[:3000],
    "more than there is": HEAD + b"T\xff\xff\xff\x7fabc.",
    "a shape that does not fit": pickle.dumps(IMAGES, 2).replace(b"K\x14K\x10", b"K\x15K\x10"),
}


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_and_damage_are_user_errors(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, TRICKS[name])
    with pytest.raises(UserError, match=r"it\.pkl (was not read|cannot be read as a pickle)"):
        read_pickle(path)
    assert np.array_equal(read_pickle(written2(tmp_path, IMAGES)), IMAGES)  # nothing was changed in the reader
