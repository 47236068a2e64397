"""Measuring in a process of its own, so that no measurement feels what another has left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .environment import ROOT


class MeasurementError(Exception):
    """Something could not be measured; the message says why, in one line."""


R = TypeVar("R", bound=BaseModel)


def python(
    *arguments: str,
    seconds: float,
    folder: Path = ROOT,
    settings: Mapping[str, str] | None = None,
    interpreter: str = sys.executable,
) -> str:
    """Run Python in a folder, with more in its environment, and return what it printed.

    It is no part of a run of pytest that may be around it.
    MeasurementError when it fails, or takes longer than so many seconds.
    """
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    try:
        ended = subprocess.run(
            [interpreter, *arguments],
            cwd=folder,
            env=outside | dict(settings or {}),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        msg = f"took longer than {seconds:.0f} s"
        raise MeasurementError(msg) from None
    if ended.returncode:
        raise MeasurementError(reason(ended.stdout + ended.stderr))
    return ended.stdout


def module(
    name: str, asked: BaseModel, answer: type[R], *, seconds: float, interpreter: str = sys.executable
) -> R:
    """Run a module that takes `asked` as JSON and prints `answer` as JSON. MeasurementError when it does not."""
    printed = python("-m", name, asked.model_dump_json(), seconds=seconds, interpreter=interpreter)
    try:
        return answer.model_validate_json(printed)
    except ValidationError:
        msg = f"{name} printed no {answer.__name__}"
        raise MeasurementError(msg) from None


def reason(log: str) -> str:
    """Return the line of a log that says most about a failure."""
    lines = [line.strip().removeprefix("E ").strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line or "error: " in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:200]
