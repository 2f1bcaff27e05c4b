"""What fsl predict found, to look at: a page that needs no network and no other file, and a confusion matrix."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

from fsl_cli.data.decode import File
from fsl_cli.text import html
from fsl_cli.use.predictions import Prediction, Predictions, accuracy_line, unknown_line

SIDE = 128  # pixels of a thumbnail
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(21em, 1fr)); gap: 1em }
.card { border: 1px solid #ccc; border-left: 6px solid #bbb; border-radius: 6px; padding: .6em }
.card { display: flex; gap: .8em }
.right { border-left-color: #2a9d4a } .wrong { border-left-color: #d33 }
.card img { width: 8em; height: 8em; object-fit: cover; border-radius: 4px; image-rendering: auto }
.card .near img { width: 3em; height: 3em; vertical-align: middle; margin-right: .4em }
.say { flex: 1; min-width: 0 } .file { color: #666; font-size: 12px; overflow-wrap: anywhere }
.bar { position: relative; background: #f1f1f1; margin: 2px 0; border-radius: 3px; overflow: hidden }
.bar i { position: absolute; inset: 0 auto 0 0; background: #bcd7f5 }
.bar span { position: relative; display: flex; justify-content: space-between; gap: 1em; padding: 0 .4em }
.near, .truth { font-size: 12px; margin-top: .4em }
"""


def thumbnail(file: File) -> str:
    """A small picture as a data URI, cut as the run sees it, in colour."""
    from PIL import Image

    from fsl_cli.data.photos import photo

    buffer = BytesIO()
    Image.fromarray(photo(file, SIDE, 3).transpose(1, 2, 0)).save(buffer, "JPEG", quality=80)
    return _uri("jpeg", buffer.getvalue())


def thumbnail_of(name: str, sources: dict[str, File]) -> str:
    """The same of a picture that was read, or that lies where it is said to; nothing to see where it does not."""
    try:
        return thumbnail(sources.get(name) or File(name, Path(name).expanduser().read_bytes))
    except OSError:
        return _uri("svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>')


def page(found: Predictions, matrix: Path | None) -> str:
    """The page: what is wrong comes first, then what is least sure. `matrix` is the confusion matrix's picture."""
    cards = [row for row in found.rows if row.file in found.thumbnails]
    cards.sort(key=lambda row: (row.true in (None, found.label(row)), max(row.probabilities)))
    more = f", of which the first {len(cards):,} are shown" if len(cards) < len(found.rows) else ""
    known = "".join(f"<p><b>{html(line)}</b></p>" for line in (unknown_line(found), accuracy_line(found)) if line)
    if matrix:
        known += f'<details><summary>Confusion matrix</summary><img src="{_uri("png", matrix.read_bytes())}"></details>'
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Predictions</title><style>{STYLE}</style>
<h1>{len(found.rows):,} pictures{more}</h1>
<p>{html(found.algorithm)}, {html(found.run)}: {len(found.support):,} support pictures of
{len(found.classes):,} classes. What is wrong comes first, then what is least sure.</p>
{known}
<div class="grid">
{"".join(_card(found, row) for row in cards)}</div></html>
"""


def _card(found: Predictions, row: Prediction) -> str:
    state = "" if row.true is None else "right" if row.true == found.label(row) else "wrong"
    bars = "".join(
        f'<div class="bar"><i style="width:{share:.1%}"></i><span><b>{html(name)}</b>{share:.1%}</span></div>'
        for name, share in found.best(row, 3)
    )
    if row.is_unknown:
        bars = f'<div class="bar"><span><b>{html(found.no_class)}</b>{row.unknown:.1%}</span></div>{bars}'
    truth = f'<div class="truth">is <b>{html(row.true)}</b></div>' if row.true and state == "wrong" else ""
    near = html(found.classes[found.support[row.nearest]])
    return (
        f'<div class="card {state}"><img loading="lazy" src="{found.thumbnails[row.file]}">'
        f'<div class="say"><div class="file">{html(row.file)}</div>{bars}{truth}'
        f'<div class="near" title="{html(row.nearest)}"><img loading="lazy" src="{found.thumbnails[row.nearest]}">'
        f"nearest support: {near}</div></div></div>\n"
    )


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
