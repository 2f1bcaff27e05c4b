"""Whose statistics a norm takes: a name that settings can read without torch."""

from __future__ import annotations

from typing import Literal

Mode = Literal["running", "support", "transductive", "group", "none"]
ALONE: tuple[Mode, ...] = ("running", "group", "none")  # under which evaluation makes of an item what is its own
