"""Pictures, pages and tables from the results. Nothing here is written by hand, and nothing is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.environment import ROOT
from benchmarks.results import path_of

from . import page, plots, tables
from .load_tables import load_results, originals
from .peer_tables import server_results
from .rate_tables import rate_results

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


@dataclass(frozen=True)
class Picture:
    """One that is drawn from results."""

    file: str
    sources: list[Path]
    draw: Callable[[Path, str], None]
    """Takes the file and the fingerprint of the sources."""

    @property
    def fingerprint(self) -> str:
        """What it carries when it is as new as its results."""
        return plots.fingerprint(sorted(self.sources))


def pictures() -> list[Picture]:
    """Return those for which there are results."""
    found = [
        Picture(PICTURES[name], [path_of(result.name)], partial(plots.over_time, result))
        for name, result in originals().items()
    ]
    loads, rates, servers = load_results(), rate_results(), server_results()
    if loads:
        sources = [path_of(result.name) for result in loads]
        found.append(Picture(plots.COMPARISON, sources, partial(plots.comparison, loads)))
    if rates:
        sources = [path_of(result.name) for result in rates]
        found.append(Picture(plots.AGAINST_RATE, sources, partial(plots.against_rate, rates)))
    if servers:
        sources = [path_of(result.name) for repeats in servers.values() for result in repeats]
        found.append(Picture(plots.SERVERS, sources, partial(plots.servers, servers)))
    return found


def write() -> None:
    """Write all of it anew. ResultFileError when a result is none."""
    for picture in pictures():
        picture.draw(ASSETS / picture.file, picture.fingerprint)
    for name, result in originals().items():
        page.write(result, ASSETS / PICTURES[name], ASSETS / PAGES[name])
    BENCHMARK.write_text(tables.fill(BENCHMARK.read_text()))
