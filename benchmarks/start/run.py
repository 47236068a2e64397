"""The measurement: both programs, in fresh processes, in turns, with compiled bytecode."""

from __future__ import annotations

import json
import tempfile

from pydantic import BaseModel, ConfigDict

from benchmarks.fresh import python
from benchmarks.scale import Scale
from benchmarks.spread import Spread

PROGRAMS = ("library", "service")
LIMIT = 120.0
"""Seconds for one process."""

SECONDS = 8.0
"""What both take together, for the estimate."""


class StartResult(BaseModel):
    """Seconds of each part, one for each repeat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repeats: int
    seconds: dict[str, list[float]]
    """asyncio, batchers (after asyncio), tensorflow, server (ready, after TensorFlow)."""

    def spread(self, part: str) -> Spread:
        """Return what the repeats of a part say."""
        return Spread(tuple(self.seconds[part]))


def repeats(scale: Scale) -> int:
    """Return how often each program is run."""
    return 7 if scale == "full" else 1


def measure(repeats: int) -> StartResult:
    """Run both programs so often, and once before for the bytecode. MeasurementError when one fails."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(-1, repeats):
            for program in PROGRAMS:
                printed = python(
                    *("-X", f"pycache_prefix={folder}", "-m", f"benchmarks.start.{program}"), seconds=LIMIT
                )
                found: dict[str, float] = json.loads(printed.splitlines()[-1])
                for part, value in found.items():
                    if number >= 0:
                        seconds.setdefault(part, []).append(value)
    return StartResult(repeats=repeats, seconds=seconds)
