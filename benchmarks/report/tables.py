"""The tables of BENCHMARK.md. Each stands between two markers, which name it; the text around them is written."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.load.plan import ORIGINALS, cells
from benchmarks.load.run import LoadResult
from benchmarks.results import Result, read

MARKER = re.compile(r"(<!-- table: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

HEAD = (
    "| what | requests/s | failures/s | mean, ms | p50, ms | p95, ms | p99, ms | batch | CPU, s |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)


def load_results() -> list[Result[LoadResult]]:
    """Return the results of the matrix that there are, in the order of the plan."""
    found = [read(name, LoadResult) for name in cells("full") if "/original/" not in name]
    return [result for result in found if result is not None]


def fill(text: str) -> str:
    """Return the text with its tables written anew. KeyError for a marker of a table that there is not."""
    return MARKER.sub(lambda found: found[1] + TABLES[found["name"]]() + found[3], text)


def _row(name: str) -> str:
    result = read(name, LoadResult)
    title = name.removeprefix("load/").removeprefix("original/")
    if result is None:
        return f"| {title} | not measured | | | | | | | |\n"
    measured = result.measured
    top = measured.top
    times = (f"{1000 * seconds:.1f}" for seconds in (top.mean, top.p50, top.p95, top.p99))
    batch = "" if measured.cell.path == "/predict" else f"{measured.batch_size_mean:.1f}"
    columns = (
        title,
        f"{top.requests_per_second:.1f}",
        f"{top.failures_per_second:.2f}",
        *times,
        batch,
        f"{measured.cpu_seconds:.1f}",
    )
    return f"| {' | '.join(columns)} |\n"


def _originals() -> str:
    return HEAD + "".join(_row(f"load/original/{name}") for name in ORIGINALS)


def _matrix() -> str:
    return HEAD + "".join(_row(name) for name in cells("full") if "/original/" not in name)


def _environment() -> str:
    results = load_results()
    if not results:
        return "Nothing was measured yet.\n"
    found = sorted({f"{result.scale}: {result.environment.caption}" for result in results})
    return "".join(f"* {line}\n" for line in found)


TABLES: dict[str, Callable[[], str]] = {
    "environment": _environment,
    "load-matrix": _matrix,
    "load-originals": _originals,
}
