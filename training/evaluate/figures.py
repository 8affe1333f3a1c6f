"""Figures with their confidence: shares, means, and what becomes of yes and no."""

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Z = 1.959963984540054
"""Of a 95 % interval."""

NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        value: a share (0..1), or points where `unit` says so.
        low, high: 95 % confidence interval in the same unit; None where there is none.
        count: answers behind it.
        unit: "share" or "points".
    """

    value: float
    low: float | None
    high: float | None
    count: int
    unit: str = "share"

    def __str__(self) -> str:
        if self.unit == "points":
            text = f"{self.value:.1f}"
            return text if self.low is None else f"{text} ({self.low:.1f} to {self.high:.1f})"
        text = f"{self.value:.1%}"
        return text if self.low is None else f"{text} ({self.low:.1%} to {self.high:.1%})"


def mean(scores: Sequence[float]) -> Figure:
    """The mean of scores from 0 to 1: with Wilson's interval where each is 0 or 1, else with the normal one.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    n = len(scores)
    if not n:
        return Figure(0.0, None, None, 0)
    value = sum(scores) / n
    if set(scores) <= {0, 1}:
        return share(round(sum(scores)), n)
    error = Z * statistics.stdev(scores) / math.sqrt(n) if n > 1 else 0.0
    return Figure(value, max(0.0, value - error), min(1.0, value + error), n)


def share(part: int, whole: int) -> Figure:
    """`part` of `whole` with Wilson's interval."""
    if not whole:
        return Figure(0.0, None, None, 0)
    p, z2 = part / whole, Z * Z
    middle = (p + z2 / (2 * whole)) / (1 + z2 / whole)
    half = Z / (1 + z2 / whole) * math.sqrt(p * (1 - p) / whole + z2 / (4 * whole * whole))
    return Figure(p, max(0.0, middle - half), min(1.0, middle + half), whole)


def bootstrap(rows: Sequence, figure: Callable[[Sequence], float], unit: str = "share") -> Figure:
    """A figure of rows with the percentile interval of resampled rows; seeded, so that it is the same each time."""
    value = figure(rows)
    rng = random.Random(len(rows))
    values = sorted(figure(rng.choices(rows, k=len(rows))) for _ in range(NUM_RESAMPLES))
    return Figure(value, values[int(0.025 * NUM_RESAMPLES)], values[int(0.975 * NUM_RESAMPLES)], len(rows), unit)


def confusion(expected: Sequence[str], said: Sequence[str]) -> dict[str, dict[str, int]]:
    """Expected yes or no -> what was said -> how often."""
    table = {want: {"yes": 0, "no": 0, "other": 0} for want in ("yes", "no")}
    for want, got in zip(expected, said, strict=True):
        table[want][got] += 1
    return table
