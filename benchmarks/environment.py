"""Where and with what something was measured. It goes into every result."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parents[1]

PACKAGES = (
    *("aiohttp", "fastapi", "keras", "locust", "numpy", "pydantic", "pytest-benchmark", "starlette"),
    *("tensorflow-cpu", "uvicorn", "uvloop"),
    *("aiodataloader", "async-batcher", "batched", "bentoml", "litserve", "mosec", "ray"),
)

MEASURED = (
    *("batchers", "server", "benchmarks", "requirements", "assets/diabetes.keras", "assets/diabetes.json"),
    *(
        ":(exclude)benchmarks/report",
        ":(exclude)benchmarks/faults/equal.py",
        ":(exclude)benchmarks/theory/processes.py",
    ),
)
"""What decides about figures: files and folders, without what only shows results, or measures nothing."""


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
    """Return the last commit that changed what is measured, with a plus and a digest of what was changed since."""
    try:
        name = _git("log", "-1", "--format=%h", "--", *MEASURED)
        changes = _git("diff", "HEAD", "--", *MEASURED) + _git("status", "--porcelain", "--", *MEASURED)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else name


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
