"""What fsl predict found, to look at: a page that needs no network, no other file and no script."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from io import BytesIO
from pathlib import Path

from fsl_cli.data.decode import WORKERS, File
from fsl_cli.data.places import disk_file
from fsl_cli.errors import shown
from fsl_cli.use.predictions import Prediction, Predictions, accuracy_line, unknown_line

PICTURED = 2000  # pictures on a page at most
SIDE = 128  # pixels of a thumbnail
STATES = ("right", "wrong", "unsure", "unknown")  # which the page shows alone where asked
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
b, .file { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate }
.show { display: inline-block; border: 1px solid #999; border-radius: 1em; padding: .2em .9em; margin: 0 .4em 1em 0 }
.show { cursor: pointer } input { position: absolute; opacity: 0 } input:checked + .show { background: #1f4e8c }
input:checked + .show { color: #fff } input:focus-visible + .show { outline: 3px solid #f0a000 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(21em, 1fr)); gap: 1em }
.card { border: 1px solid #ccc; border-left: 6px solid #bbb; border-radius: 6px; padding: .6em }
.card { display: flex; gap: .8em; content-visibility: auto; contain-intrinsic-size: auto 11em }
.right { border-left-color: #2a9d4a } .wrong { border-left-color: #d33 } .unknown { border-left-color: #7a4fbf }
.card img { width: 8em; height: 8em; object-fit: cover; border-radius: 4px }
.near { display: flex; gap: .4em; align-items: center } .near img { width: 3em; height: 3em; flex: none }
.say { flex: 1; min-width: 0 } .file { color: #666; font-size: 12px }
.bar { position: relative; background: #f1f1f1; margin: 2px 0; border-radius: 3px; overflow: hidden }
.bar i { position: absolute; inset: 0 auto 0 0; background: #bcd7f5; opacity: .85 }
.bar span { position: relative; display: flex; justify-content: space-between; gap: 1em; padding: 0 .4em }
blockquote { margin: 0; width: 14em; flex: none; overflow-wrap: anywhere; unicode-bidi: isolate }
.near blockquote { width: 9em; font-size: 11px }
details { margin-bottom: .6em } details img { max-width: 100% }
.why { color: #9a5b00 } .near, .truth, .else { font-size: 12px; margin-top: .4em }
"""


def thumbnails(found: Predictions, read: dict[str, File]) -> dict[str, str]:
    """File -> data URI of the pictures that a page shows, the most doubtful, and of their nearest support pictures.

    `read` are files that are known by their names; of others the name is a path.
    """
    rows = found.doubtful_first()[:PICTURED]
    wanted = sorted({name for row in rows for name in (row.file, row.nearest, row.own)})
    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(wanted, pool.map(lambda name: _thumbnail(name, read), wanted), strict=True))


def _thumbnail(name: str, read: dict[str, File]) -> str:
    """A small picture, cut as the run sees it, in colour; nothing to see where the file is not there any more."""
    from PIL import Image

    from fsl_cli.data.photos import photo

    buffer = BytesIO()
    try:
        pixels = photo(read.get(name) or disk_file(Path(name).expanduser()), SIDE, 3)
    except OSError:
        return _uri("svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "JPEG", quality=80)
    return _uri("jpeg", buffer.getvalue())


def page(found: Predictions, matrix: Path | None) -> str:
    """The page, the most doubtful pictures first. `matrix` is the confusion matrix's picture."""
    rows = [row for row in found.doubtful_first()[:PICTURED] if row.file in (found.texts or found.thumbnails)]
    if not any(row.true for row in found.rows):  # folders without any class's name say nothing
        rows = [row._replace(told=False) for row in rows]
    states = [_states(found, row) for row in rows]
    unknown = f", {sum(row.is_unknown for row in found.rows):,} of them unknown" if found.rate is not None else ""
    part = f" The {len(rows):,} most doubtful are shown." if len(rows) < len(found.rows) else ""
    lines = "".join(f"<p><b>{_html(line)}</b></p>" for line in (unknown_line(found), accuracy_line(found)) if line)
    if matrix:
        picture = f'<img alt="confusion matrix" src="{_uri("png", matrix.read_bytes())}">'
        lines += f"<details><summary>Confusion matrix</summary>{picture}</details>"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Predictions</title><style>{STYLE}{"".join(map(_rule, STATES))}</style>
<h1>{len(found.rows):,} {found.items}{unknown}</h1>
<p>{_html(found.algorithm)}, <b>{_html(found.run)}</b>: {len(found.support):,} support {found.items} of
{len(found.classes):,} classes. The most doubtful come first.{part} A bar is as long as the
square root of its probability, so that a second choice can be seen.</p>
{lines}
{_choice("all", len(rows), True)}{"".join(_choice(state, sum(state in each for each in states)) for state in STATES)}
<div class="grid">
{"".join(_card(found, row, state) for row, state in zip(rows, states, strict=True))}</div></html>
"""


def _states(found: Predictions, row: Prediction) -> list[str]:
    """What the page's choices call a picture: unknown or else right, wrong or neither, and unsure."""
    if row.is_unknown:
        return ["unknown"]
    states = ["unsure"] if found.why(row) else []
    if row.true is not None:
        states.append("right" if row.true == found.label(row) else "wrong")
    elif row.told and found.rate is not None:  # of no class, and called one
        states.append("wrong")
    return states


def _rule(state: str) -> str:
    return f"#{state}:checked ~ .grid .card:not(.{state}) {{ display: none }}\n"


def _choice(state: str, count: int, chosen: bool = False) -> str:
    """A button that leaves the pictures of one state on the page; none where there are none."""
    button = f'<input type="radio" name="show" id="{state}"{" checked" if chosen else ""}>'
    return f'{button}<label class="show" for="{state}">{state} {count:,}</label>' if count else ""


def _card(found: Predictions, row: Prediction, states: Iterable[str]) -> str:
    bars = "".join(_bar(name, share) for name, share in found.best(row, 3))
    if row.is_unknown:
        bars = f'{_bar(found.no_class, row.unknown or 0)}<div class="else">if it is one of the classes:</div>{bars}'
    why = f'<div class="why">{found.why(row)}</div>' if found.why(row) else ""
    truth = "" if not row.told else "is of no class" if row.true is None else f"is <b>{_html(row.true)}</b>"
    truth = f'<div class="truth">{truth}</div>' if truth and row.true != found.answer(row) else ""
    near = _near(found, row.nearest, "nearest of all: ")
    near = near if row.own == row.nearest else _near(found, row.own, "nearest of ") + near
    return (
        f'<div class="card {" ".join(states)}">{_shown(found, row.file)}'
        f'<div class="say"><div class="file">{_path(row.file)}</div>{bars}{why}{truth}{near}</div></div>\n'
    )


def _bar(name: str, share: float) -> str:
    """A class and its probability, at the length of the probability's square root."""
    width = share**0.5
    percent = "&lt;0.1%" if share < 0.001 else f"{share:.1%}"
    return f'<div class="bar"><i style="width:{width:.1%}"></i><span><b>{_html(name)}</b>{percent}</span></div>'


def _path(file: str) -> str:
    """A file's name, which may break behind each folder."""
    return _html(file).replace("/", "/<wbr>")


def _near(found: Predictions, file: str, what: str) -> str:
    """A support picture, and of which class it is."""
    name = _html(found.classes[found.support[file]])
    picture = _shown(found, file)
    return f'<div class="near" title="{_html(file)}">{picture}<span>{what}<b>{name}</b></span></div>'


def _shown(found: Predictions, file: str) -> str:
    """A picture; or what a text says, where that is kept."""
    if found.texts:
        return f"<blockquote>{_html(found.texts.get(file, file))}</blockquote>"
    return f'<img loading="lazy" alt="" src="{found.thumbnails[file]}">'


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _html(text: str) -> str:
    return escape(shown(text))
