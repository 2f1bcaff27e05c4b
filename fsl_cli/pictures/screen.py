"""What people look at: the console, the last screen of a run, its curves."""

from __future__ import annotations
