"""Results in files: one for each measurement, written as soon as it is finished.

So an interrupted run loses nothing that was finished, and goes on where it was. A file that is not what it should
be is reported in one line, and is left alone.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .environment import ROOT, Environment
from .scale import Scale

RESULTS = ROOT / "assets" / "results"

R = TypeVar("R", bound=BaseModel)
M = TypeVar("M", bound=BaseModel)


class ResultFileError(Exception):
    """A file in `assets/results` is no result."""


class Provenance(BaseModel):
    """How and where a result came about."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    scale: Scale
    environment: Environment


class Result(BaseModel, Generic[R]):
    """One measurement: what was measured, how, where, and what came out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scale: Scale
    environment: Environment
    measured: R


def path_of(name: str, scale: Scale) -> Path:
    """Return the file of a measurement; its name may have folders in it."""
    return RESULTS / scale / f"{name}.json"


def write(result: Result[R]) -> None:
    """Write a result, all of it or nothing."""
    file = path_of(result.name, result.scale)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(result.model_dump_json(indent=1) + "\n")
        Path(temporary).chmod(0o644)  # a temporary file is its owner's alone
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(name: str, scale: Scale, kind: type[R]) -> Result[R] | None:
    """Return a result, or None if it was not measured yet. ResultFileError when the file holds something else."""
    file = path_of(name, scale)
    if not file.exists():
        return None
    return _parse(file, Result[kind])  # type: ignore[valid-type]  # known when it runs


def provenance(scale: Scale) -> list[Provenance]:
    """Return how and where each result came about, in the order of the files. ResultFileError as with `read`."""
    return [_parse(file, Provenance) for file in sorted((RESULTS / scale).rglob("*.json"))]


def _parse(file: Path, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        msg = f"{file.relative_to(ROOT)}: {where}: {problem['msg']}; remove the file to measure it again"
        raise ResultFileError(msg) from None
