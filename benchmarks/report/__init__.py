"""Pictures, pages and tables from the results. Nothing here is written by hand, and nothing is measured."""

from __future__ import annotations

from benchmarks.environment import ROOT
from benchmarks.load.plan import ORIGINALS
from benchmarks.load.run import LoadResult
from benchmarks.results import Result, path_of, read

from . import page, plots, tables

ASSETS = ROOT / "assets"
BENCHMARK = ROOT / "BENCHMARK.md"

PICTURES = {
    "predict": "predict__total_requests_per_second.png",
    "optimized_predict": "optimized_predict__total_requests_per_second.png",
    "optimized_predict_v0.2.0": "optimized_predict__total_requests_per_second_v0.2.0.png",
}
"""The original report's names."""

PAGES = {
    "predict": "predict__report.html",
    "optimized_predict": "optimized_predict__report.html",
    "optimized_predict_v0.2.0": "optimized_predict__report_v0.2.0.html",
}


def originals() -> dict[str, Result[LoadResult]]:
    """Return those of the original report's measurements that there are."""
    found = {name: read(f"load/original/{name}", LoadResult) for name in ORIGINALS}
    return {name: result for name, result in found.items() if result is not None}


def write() -> None:
    """Write all of it anew. ResultFileError when a result is none."""
    ours = tables.load_results()
    for name, result in originals().items():
        picture = ASSETS / PICTURES[name]
        plots.over_time(result, picture, plots.fingerprint([path_of(result.name)]))
        page.write(result, picture, ASSETS / PAGES[name])
    if ours:
        sources = sorted(path_of(result.name) for result in ours)
        plots.comparison(ours, ASSETS / plots.COMPARISON, plots.fingerprint(sources))
    BENCHMARK.write_text(tables.fill(BENCHMARK.read_text()))
