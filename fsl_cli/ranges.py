"""The ranges of numbers, as annotations: `lr: Rate` says that a rate is above 0 and finite.

Read by settings/binding.py; a number without a range of its own is finite at least, and a whole number at least 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """From `least` on, or `above` a bound that is not part of it; up to `most`, or `below` a bound."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def admits(self, value: float) -> bool:
        """Whether a number lies in the range; NaN and infinity never do."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """`at least 1`, `above 0`, `from 0 to 1`, `from 0 and below 1`."""
        low = f"above {self.above:g}" if self.above is not None else ""
        if self.least is not None:
            low = (
                f"from {self.least:g}"
                if self.most is not None or self.below is not None
                else f"at least {self.least:g}"
            )
        high = (
            f"to {self.most:g}" if self.most is not None else f"below {self.below:g}" if self.below is not None else ""
        )
        if low and high:
            return f"{low} {'up ' * low.startswith('above')}{high}" if self.most is not None else f"{low} and {high}"
        return low or ("at most " + high.removeprefix("to ") if self.most is not None else high) or "a finite number"


AnyNumber = Range()
Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]  # a count that may be none
Rate = Annotated[float, Range(above=0)]  # rates, temperatures, penalties: above 0
Weight = Annotated[float, Range(least=0)]  # of a term that may be left out
Share = Annotated[float, Range(least=0, most=1)]
PartOf = Annotated[float, Range(least=0, below=1)]  # a share that leaves something: dropout, momentum
