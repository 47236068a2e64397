"""Mutants of the pure modules: how many changes of one operator or constant no test notices."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.environment import ROOT
from benchmarks.fresh import MeasurementError, python, reason

SECONDS = 2400.0
"""What all of them take, roughly."""

LIMIT = 4 * SECONDS

LINE = re.compile(r"^\s*batchers\.(?P<module>\w+)\.(?P<name>\S+): (?P<state>.+)$", re.MULTILINE)


class MutantsResult(BaseModel):
    """What became of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: dict[str, int]
    """Mutants of each module."""
    survived: dict[str, list[str]]
    """Those that no test noticed, by module."""


def measure() -> MutantsResult:
    """Make them in a copy of the project and run the fast tests on each. MeasurementError when that fails."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "assets", "mutants"))
        _mutmut(copy, "run")
        printed = _mutmut(copy, "results", "--all", "true")
    return parse(printed)


def parse(printed: str) -> MutantsResult:
    """Return what mutmut says. MeasurementError when it says nothing."""
    made: Counter[str] = Counter()
    survived: dict[str, list[str]] = {}
    for found in LINE.finditer(printed):
        made[found["module"]] += 1
        if found["state"] not in {"killed", "timeout"}:
            survived.setdefault(found["module"], []).append(f"{found['name']} {found['state']}")
    if not made:
        msg = f"mutmut made nothing: {reason(printed)}"
        raise MeasurementError(msg)
    return MutantsResult(made=made, survived=survived)


def _mutmut(folder: Path, *arguments: str) -> str:
    settings = {"HYPOTHESIS_PROFILE": "mutants"}
    return python("-m", "mutmut", *arguments, seconds=LIMIT, folder=folder, settings=settings)
