"""Timing in rounds: every contestant once, then all again, so that noise hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOTAL = "total"

# Of a contestant: Seconds.best or Seconds.median.
Statistic = Callable[[str], float]


@dataclass(frozen=True)
class Contestant:
    """Something to be timed.

    Attributes:
        name: Of the row.
        parts: What is called one after the other, each part timed by itself.
    """

    name: str
    parts: Mapping[str, Callable[[], object]]


class Seconds:
    """Durations of the repetitions, by contestant and part; the part `total` is all of them."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, list[float]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._samples

    def add(self, name: str, durations: Mapping[str, float]) -> None:
        """One repetition."""
        parts = self._samples.setdefault(name, {})
        for part, seconds in {**durations, TOTAL: sum(durations.values())}.items():
            parts.setdefault(part, []).append(seconds)

    def best(self, name: str, part: str = TOTAL) -> float:
        """The shortest."""
        return min(self._samples[name][part])

    def median(self, name: str, part: str = TOTAL) -> float:
        """The one in the middle."""
        return statistics.median(self._samples[name][part])

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Shortest and median by contestant and part."""
        return {
            name: {
                part: {
                    "min": round(self.best(name, part), 6),
                    "median": round(self.median(name, part), 6),
                }
                for part in parts
            }
            for name, parts in self._samples.items()
        }


def run_rounds(contestants: Sequence[Contestant], repeat: int, seconds: Seconds) -> None:
    """Time everybody; each round begins with another one.

    Args:
        contestants: In the order of the first round.
        repeat: Rounds.
        seconds: Where the durations go.
    """
    for number in range(repeat):
        first = number % max(len(contestants), 1)
        for contestant in [*contestants[first:], *contestants[:first]]:
            durations = {}
            for part, function in contestant.parts.items():
                start = time.perf_counter()
                function()
                durations[part] = time.perf_counter() - start
            seconds.add(contestant.name, durations)


def relative_l1(found: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Σ |found − truth| / Σ |truth|, in double precision."""
    difference = total = 0.0
    for first in range(0, len(truth), 2**16):
        block = truth[first : first + 2**16].astype(np.float64)
        difference += float(np.abs(found[first : first + 2**16] - block).sum())
        total += float(np.abs(block).sum())
    return difference / total if total else difference
