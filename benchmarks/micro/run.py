"""One micro measurement: the cases of a group, each in fresh processes, in turns."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.fresh import MeasurementError, python
from benchmarks.spread import Spread, interleaved

LIMIT = 300.0
"""Seconds for one process."""

PROCESS_SECONDS = 1.5
"""What one process takes, for the estimate."""

PLUGINS = ("anyio", "benchmark", "timeout")
"""What the cases and pytest's settings need. Two others import Hypothesis, which takes longer than most cases."""


class Side(BaseModel):
    """One case of pytest-benchmark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    case: str
    """Where it is, as pytest names it."""
    floor: str = ""
    """The side that does the same job without features, if there is one."""


class Group(BaseModel):
    """Cases that are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sides: list[Side]
    repeats: int

    @property
    def seconds(self) -> float:
        """How long it takes, roughly."""
        return PROCESS_SECONDS * len(self.sides) * self.repeats


class MicroResult(BaseModel):
    """What a group gave."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Group
    seconds_per_item: dict[str, list[float]]
    """For each side the median round of each process."""
    failed: dict[str, str]
    """Why there is nothing for a side, or less than was to be."""

    def spread(self, side: str) -> Spread:
        """Return what the repeats of a side say. KeyError for one that failed."""
        return Spread(tuple(self.seconds_per_item[side]))


def measure(group: Group) -> MicroResult:
    """Run it. The result says if a case fails."""
    found: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, str] = {}
    for side in interleaved(group.sides, group.repeats):
        if side.name in failed and side.name not in found:
            continue  # it was not there at the first attempt
        try:
            seconds = _seconds_per_item(side.case)
        except MeasurementError as error:
            failed[side.name] = str(error)
        else:
            found[side.name].append(seconds)
    return MicroResult(group=group, seconds_per_item=found, failed=failed)


def _seconds_per_item(case: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        python(
            *("-m", "pytest", case, "-q", "--benchmark-only", f"--benchmark-json={record}", "--tb=line"),
            *("-p", "no:cacheprovider"),
            *(f"-p{plugin}" for plugin in PLUGINS),
            seconds=LIMIT,
            settings={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
        (measured,) = json.loads(record.read_bytes())["benchmarks"]
    return float(measured["stats"]["median"]) / int(measured["extra_info"]["items"])
