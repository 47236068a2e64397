"""Tests or benchmarks, never both: `pytest` runs the ones, `pytest --benchmark-only` the others."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the folder of the kind that was not asked for."""
    wanted = "benchmarks" if config.getoption("benchmark_only") else "tests"
    first = collection_path.relative_to(config.rootpath).parts[:1]
    return True if first and first[0] in {"benchmarks", "tests"} - {wanted} else None
