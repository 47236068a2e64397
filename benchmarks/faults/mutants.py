"""Mutants of the pure modules: how many changes of one operator or constant no test notices."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from benchmarks.environment import ROOT
from benchmarks.fresh import MeasurementError, python, reason

SECONDS = 2400.0
"""What all of them take, roughly."""

LIMIT = 4 * SECONDS

FEW = "batchers.core.messages.*"
"""Mutants of a small module. Before it runs any, mutmut makes all and learns which tests run which function."""

LISTING = """
import json
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

mutants = []
for path in walk_mutatable_files():
    data = SourceFileMutationData(path=path)
    data.load()
    for name, code in data.exit_code_by_key.items():
        mutants.append((name, status_by_exit_code[code], get_diff_for_mutant(name, path=path)))
print(json.dumps(mutants))
"""
"""What `mutmut results` and `mutmut show` print, of all mutants in one process: each of those takes a second."""

HANGS = 60
"""Seconds after which a test hangs; the longest one takes a quarter of that."""

NOTICED = {"killed", "timeout", "segfault"}
"""The last one is any end by a signal, such as that of a mutant that takes all memory."""

Mutants = list[tuple[str, str, str]]
"""Name, what became of it, and its diff."""


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
    """What mutmut says of it: that it survived, that no test runs the line, or that it was not checked."""


class MutantsResult(BaseModel):
    """What became of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: dict[str, int]
    """Mutants of each module."""
    survived: list[Survivor]


def measure(why_equal: Callable[[Survivor], str]) -> MutantsResult:
    """Make them in a copy of the project and run the fast tests on each. MeasurementError when that fails.

    A mutant that is known to be equal in meaning is not run, because all tests would run on it, and pass:
    these few took most of the time. It was run once, before somebody said why it is equal.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "assets", "mutants"))
        _mutmut(copy, "run", FEW)
        _mutmut(copy, "run", *to_run(_listed(copy), why_equal))
        return counted(_listed(copy))


def to_run(made: Mutants, why_equal: Callable[[Survivor], str]) -> Iterable[str]:
    """Return the names of those that tests may notice."""
    return [name for name, state, diff in made if not why_equal(_survivor(name, state, diff))]


def counted(made: Mutants) -> MutantsResult:
    """Return how many were made, and which were not noticed. What mutmut is not sure of was not."""
    modules: Counter[str] = Counter()
    survived: list[Survivor] = []
    for name, state, diff in made:
        mutant = _survivor(name, state, diff)
        modules[mutant.module] += 1
        if state not in NOTICED:
            survived.append(mutant)
    return MutantsResult(made=modules, survived=survived)


def read(printed: str) -> Mutants:
    """Return what `LISTING` prints. MeasurementError where there are no mutants in it."""
    try:
        made = TypeAdapter(Mutants).validate_json(printed)
    except ValidationError:
        made = []
    if not made:
        msg = f"mutmut made nothing: {reason(printed)}"
        raise MeasurementError(msg)
    return made


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


def _mutmut(copy: Path, *arguments: str) -> None:
    settings = {"HYPOTHESIS_PROFILE": "mutants", "PYTEST_ADDOPTS": f"--timeout={HANGS}"}
    python("-m", "mutmut", *arguments, seconds=LIMIT, folder=copy, settings=settings)


def _listed(copy: Path) -> Mutants:
    return read(python("-c", LISTING, seconds=LIMIT, folder=copy))
