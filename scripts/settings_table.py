"""The table of settings in docs/settings.md, from the annotations of fsl_cli/settings/schema.py.

python scripts/settings_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

from fsl_cli.settings.compose import compose
from fsl_cli.settings.registry import groups
from fsl_cli.settings.schema import FOUND_AT_START, NAMES, PARTS, allowed, meaning

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
BEGIN, END = "<!-- settings: python scripts/settings_table.py -->\n", "<!-- end of settings -->\n"


def table() -> str:
    """Each setting at the root: what it may be, its usual value, and what it means."""
    usual = compose([]).values
    names = [name for name in NAMES if name not in {*PARTS, *FOUND_AT_START, "logger", "choices", "teacher"}]
    rows = [f"| `{name}` | {_cell(allowed(name))} | `{_typed(usual[name])}` | {meaning(name)} |" for name in names]
    known = groups()
    parts = [
        f"| `{name}` | {f'one of `fsl ls {name}`' if name in known else 'settings of its own'} | | {meaning(name)} |"
        for name in (*PARTS, "logger")
    ]
    return "\n".join(["| setting | may be | usually | meaning |", "|---|---|---|---|", *rows, *parts]) + "\n"


def filled(text: str) -> str:
    """The page with the table as it is now."""
    return re.sub(f"(?<={BEGIN}).*?(?={END})", lambda _: table(), text, flags=re.DOTALL)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
