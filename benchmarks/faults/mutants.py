"""Mutants of the pure modules: how many changes of one operator or constant no test notices."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.environment import ROOT
from benchmarks.fresh import MeasurementError, python, reason

SECONDS = 2400.0
"""What all of them take, roughly."""

LIMIT = 4 * SECONDS

LINE = re.compile(r"^\s*(?P<name>batchers\.(?P<module>\w+\.\w+)\.\S+): (?P<state>.+)$", re.MULTILINE)

NOTICED = {"killed", "timeout"}


class Survivor(BaseModel):
    """A change that no test noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    function: str
    """With its class."""
    was: str
    """The lines that were changed; with more than one, blanks between them."""
    became: str
    state: str
    """What mutmut says of it: that it survived, or that no test runs the line."""


class MutantsResult(BaseModel):
    """What became of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: dict[str, int]
    """Mutants of each module."""
    survived: list[Survivor]


def measure() -> MutantsResult:
    """Make them in a copy of the project and run the fast tests on each. MeasurementError when that fails."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "assets", "mutants"))
        _mutmut(copy, "run")
        return parse(_mutmut(copy, "results", "--all", "true"), lambda name: _mutmut(copy, "show", name))


def parse(printed: str, show: Callable[[str], str]) -> MutantsResult:
    """Return what mutmut says; `show` returns the diff of a mutant. MeasurementError when it says nothing."""
    made: Counter[str] = Counter()
    survived: list[Survivor] = []
    for found in LINE.finditer(printed):
        made[found["module"]] += 1
        if found["state"] not in NOTICED:
            survived.append(_survivor(found["name"], found["state"], show(found["name"])))
    if not made:
        msg = f"mutmut made nothing: {reason(printed)}"
        raise MeasurementError(msg)
    return MutantsResult(made=made, survived=survived)


def _survivor(name: str, state: str, diff: str) -> Survivor:
    _, room, file, function = name.split(".")
    function = function.rpartition("__mutmut_")[0]
    *names, function = function.removeprefix("xǁ").removeprefix("x_").split("ǁ")
    return Survivor(
        module=f"{room}.{file}",
        function=".".join([*names, function]),
        was=_lines(diff, "-"),
        became=_lines(diff, "+"),
        state=state,
    )


def _lines(diff: str, sign: str) -> str:
    """Return the lines of a diff with this sign, but for comments and the names of the files."""
    changed = [line[1:] for line in diff.splitlines() if line.startswith(sign) and line[:3] != 3 * sign]
    return " ".join(line.partition("  # ")[0].strip() for line in changed)


def _mutmut(folder: Path, *arguments: str) -> str:
    settings = {"HYPOTHESIS_PROFILE": "mutants"}
    return python("-m", "mutmut", *arguments, seconds=LIMIT, folder=folder, settings=settings)
