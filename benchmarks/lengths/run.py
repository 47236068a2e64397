"""The measurement, in the environment that `make recipes` makes."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.fresh import MeasurementError, module
from benchmarks.scale import Scale

from .result import FULL, QUICK, Texts, TextsResult

PYTHON = Path(sys.prefix) / "recipes" / "bin" / "python"

MISSING = "lengths/texts is left out: `make recipes` installs the packages of its model"


def is_installed() -> bool:
    """Return True if there is an environment with the model."""
    return (PYTHON.parent.parent / "installed").exists()


def texts(scale: Scale) -> Texts:
    """Return what is measured."""
    return FULL if scale == "full" else QUICK


def measure(asked: Texts) -> TextsResult:
    """Measure all rules. Raises MeasurementError if the packages are missing, or something fails."""
    if not is_installed():
        raise MeasurementError(MISSING)
    return module(
        "benchmarks.lengths.program", asked, TextsResult, seconds=3 * asked.seconds + 120, interpreter=str(PYTHON)
    )
