"""Where and with what something was measured. It goes into every result."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parents[1]

PACKAGES = ("fastapi", "keras", "locust", "numpy", "pydantic", "starlette", "tensorflow-cpu", "uvicorn", "uvloop")


class Environment(BaseModel):
    """A machine and its software."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    cores: int
    kernel: str
    python: str
    versions: dict[str, str]
    commit: str

    @property
    def caption(self) -> str:
        """One line for a picture."""
        return f"{self.cpu}, {self.cores} cores, Linux {self.kernel}, Python {self.python}, commit {self.commit}"


def environment() -> Environment:
    """Return this one."""
    return Environment(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release().partition("-")[0],
        python=platform.python_version(),
        versions={name: found for name in PACKAGES if (found := _version(name))},
        commit=_commit(),
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the short name of the commit, with a plus if the code that is measured was changed since."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "batchers", "server", "benchmarks", "requirements")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
