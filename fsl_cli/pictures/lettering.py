"""The one door by which a picture of Matplotlib becomes a file: every name in it is drawn as it is spelled.

No `$` begins mathematics, letters that Matplotlib's own font lacks come from a font of this machine that has them, and
where none has, a box stands in their place, and one line in the terminal says so in place of Matplotlib's many.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import lines, shown
from fsl_cli.pictures.console import warn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = "DejaVu Sans"  # ships with Matplotlib
BOX = "□"
TOLD = 12  # of the letters that no font has
LEAST = 4  # letters that stay of a name, however narrow its place


def save(figure: Figure, out: Path, kind: str = "png", dpi: int = 120, **more: Any) -> None:
    """Write the picture. Raises OSError when the file cannot be written."""
    from matplotlib import rc_context

    log = logging.getLogger("matplotlib")
    before = log.level
    try:
        with warnings.catch_warnings(), rc_context({"text.parse_math": False}):
            warnings.simplefilter("ignore", UserWarning)
            log.setLevel(logging.ERROR)
            _letter(figure)
            figure.savefig(out, dpi=dpi, format=kind, **more)
    finally:
        log.setLevel(before)


def fit(name: str, inches: float, points: float) -> str:
    """The name if it is no wider than that in this size of letters, else its beginning and end with … between."""
    name = shown(name)
    if width(name, points) <= inches:
        return name
    fits, longer = min(LEAST, len(name)), len(name)
    while longer - fits > 1:
        middle = (fits + longer) // 2
        fits, longer = (middle, longer) if width(cut(name, middle), points) <= inches else (fits, middle)
    return cut(name, fits)


def cut(name: str, kept: int) -> str:
    """Its beginning and end, so many letters in all, with … between: names often differ at their end."""
    return name if kept >= len(name) else f"{name[: kept // 2]}…{name[len(name) - (kept - kept // 2) :]}"


def width(text: str, points: float) -> float:
    """How wide a line is drawn, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    families, missing = fonts(text)
    prop = FontProperties(family=families, size=points)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        wide, _, _ = text_to_path.get_text_width_height_descent(_boxed(text, missing), prop, ismath=False)
    return float(wide) / 72


def fonts(text: str) -> tuple[list[str], set[str]]:
    """Families that have the letters of `text` together, the first Matplotlib's own; and the letters that none has."""
    missing = set(shown(text)) - _letters(_own())
    families = [OWN]
    for path, family in _others() if missing else ():
        if found := missing & _letters(path):
            families.append(family)
            missing -= found
        if not missing:
            break
    return families, missing


def _letter(figure: Figure) -> None:
    """Prepare all writing of a figure."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator

    axes = [axis for pair in figure.axes for axis in (pair.xaxis, pair.yaxis)]
    for axis in axes:
        axis.get_ticklabels()  # else they come into being while the picture is drawn
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    families, missing = fonts("".join(text.get_text() for text in texts))
    if missing:
        _tell_of("".join(sorted(missing)))
    for axis in axes:
        if isinstance(axis.get_major_locator(), FixedLocator):  # names, which are set anew when it is drawn
            axis.set_ticklabels([_boxed(label.get_text(), missing) for label in axis.get_ticklabels()])
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(families)
        text.set_text(_boxed(text.get_text(), missing))


@cache
def _tell_of(letters: str) -> None:
    """Once for all pictures of a command that lack the same letters."""
    warn(
        f"No font of this machine has {cut(letters, TOLD)}: boxes stand for them in pictures. Fonts that have them are "
        "installed by the system: fonts-noto-cjk and fonts-noto on Debian and Ubuntu."
    )


def _boxed(text: str, missing: Iterable[str]) -> str:
    """Each line as it is, with boxes for the letters that no font has."""
    return "".join(BOX if letter in missing else letter for letter in lines(text))


def _own() -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(OWN))


@cache
def _letters(path: str) -> set[str]:
    """The letters that a font draws; none where it cannot be read, or has pictures in place of outlines."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return set(map(chr, font.get_charmap())) if font.num_glyphs and font.scalable else set()
    except (OSError, RuntimeError, AttributeError, ValueError):
        return set()


@cache
def _others() -> list[tuple[str, str]]:
    """The machine's fonts, upright ones without serifs first, each with its family's name."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    def rank(path: str) -> tuple[bool, bool, bool, str]:
        name = Path(path).stem
        return "Sans" not in name, not name.endswith("Regular"), "Mono" in name, name

    found = []
    for path in sorted(findSystemFonts(), key=rank):
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):
            continue
        found.append((path, fontManager.ttflist[-1].name))
    return found
