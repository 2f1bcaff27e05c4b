"""What may be a picture: whatever Pillow can decode here, told by a file's ending, or else by how it begins."""

from __future__ import annotations

import importlib
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import PurePosixPath

from PIL import EpsImagePlugin, Image, ImageFile

PLUGINS = {  # what may bring Pillow more formats, where it is installed -> what makes it do so, and the endings
    "pillow_heif": (("register_heif_opener", "register_avif_opener"), (".heic", ".heif", ".hif")),
    "pillow_avif": ((), (".avif",)),
    "pillow_jxl": ((), (".jxl",)),
}
HINTS = {ending: plugin.replace("_", "-") for plugin, (_, endings) in PLUGINS.items() for ending in endings}
HINTS[".jxl"] = "pillow-jxl-plugin"
HEAD = 64  # bytes by which a format is known

# Pillow refuses pictures of more than 178,956,970 pixels; from half of them on it would warn.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def _formats() -> list[str]:
    """The formats that can be decoded here. Those that Pillow only recognises, for others to decode, are none."""
    Image.preinit()  # all formats now, common ones first: as Pillow does at the first file that needs one,
    Image.init()  # which is not safe in threads
    for plugin, (register, _) in PLUGINS.items():
        with suppress(Exception):  # not installed, or for another Pillow
            module = importlib.import_module(plugin)
            for name in register:
                getattr(module, name, lambda: None)()
    dead = {"MPEG"} | (set() if EpsImagePlugin.has_ghostscript() else {"EPS"})
    kinds = {name: opener for name, (opener, _) in Image.OPEN.items() if name not in dead}
    return [
        name
        for name, kind in kinds.items()
        if not (isinstance(kind, type) and issubclass(kind, ImageFile.StubImageFile))
    ]


FORMATS = _formats()
ENDINGS = frozenset(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)
KNOWN = [name for name in FORMATS if Image.OPEN[name][1]]  # those that a file's first bytes tell


def ending(path: str) -> str:
    """The ending of a file's name in lower case, such as .jpg; "" if it has none."""
    return PurePosixPath(path).suffix.lower()


def begins_as_picture(head: bytes) -> bool:
    """Whether a file may be a picture by its first bytes: `is_picture` tells."""
    for name in KNOWN:
        accept = Image.OPEN[name][1]
        with suppress(Exception):  # whatever a plugin makes of bytes that are none of its own
            if accept and accept(head) is True:
                return True
    return False


def is_picture(content: bytes) -> bool:
    """Whether Pillow finds a picture in a file whose ending says nothing; pixels are not decoded."""
    try:
        with Image.open(BytesIO(content), formats=KNOWN):
            return True
    except Exception:  # plugins raise nearly anything where a file is not theirs
        return False


def hint(ending: str) -> str:
    """What to install for a file with this ending to be decoded; "" if nothing is known."""
    return f"type pip install {HINTS[ending]}" if ending in HINTS and ending not in ENDINGS else ""
