"""Pictures, pages and tables from the results. Nothing here is written by hand, and nothing is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.environment import ROOT
from benchmarks.results import path_of
from benchmarks.scale import Scale

from . import page, plots, tables
from .fault_tables import storm_results
from .load_tables import load_results, originals
from .overview import CONNECTIONS, SERVER_WORDS
from .peer_tables import rates_of, server_results
from .policy_tables import answers_by_connections, loop_results, simulated_results
from .rate_tables import rate_results

ASSETS = ROOT / "assets"
BENCHMARK = ROOT / "BENCHMARK.md"
DETAILS = ROOT / "docs" / "benchmarks"
"""The pages with all rows."""

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


def pictures(scale: Scale) -> list[Picture]:
    """Return those for which there are results enough."""
    found = [
        Picture(PICTURES[name], [path_of(result.name, scale)], partial(plots.over_time, result))
        for name, result in originals(scale).items()
    ]
    loads, rates = load_results(scale), rate_results(scale)
    servers = {
        server: repeats
        for server, repeats in server_results(scale, SERVER_WORDS).items()
        if rates_of(repeats, CONNECTIONS).values
    }
    if loads:
        sources = [path_of(result.name, scale) for result in loads]
        found.append(Picture(plots.COMPARISON, sources, partial(plots.comparison, loads)))
    if {plots.family_of(result) for result in rates} >= plots.FAMILIES.keys():
        sources = [path_of(result.name, scale) for result in rates]
        found.append(Picture(plots.AGAINST_RATE, sources, partial(plots.against_rate, rates)))
    if servers:
        sources = [path_of(result.name, scale) for repeats in servers.values() for result in repeats]
        found.append(Picture(plots.SERVERS, sources, partial(plots.servers, servers)))
    loops = list(loop_results(scale).values())
    if loops:
        sources = [path_of(result.name, scale) for result in loops]
        caption = f"{scale}; {loops[0].environment.caption}"
        found.append(
            Picture(plots.BATCHING, sources, partial(plots.batching, answers_by_connections(scale), caption))
        )
    simulated = simulated_results(scale)
    original = {name: result for name, result in simulated.items() if name.startswith("original-")}
    if all(any(kind in name for name in original) for kind in ("-poisson-", "-clients-")):
        sources = [path_of(result.name, scale) for result in original.values()]
        found.append(Picture(plots.POLICIES, sources, partial(plots.policies, original)))
    storms = storm_results(scale)
    if storms:
        sources = [path_of(result.name, scale) for result in storms.values()]
        found.append(Picture(plots.RETRIES, sources, partial(plots.retries, storms)))
    return found


def fingerprint_of(name: str, scale: Scale) -> str:
    """Return what the page and the picture of one of the original's measurements carry."""
    return plots.fingerprint([path_of(f"load/original/{name}", scale)])


def write(scale: Scale) -> None:
    """Write all of it anew from results of this scale. ResultFileError when a result is none."""
    for picture in pictures(scale):
        picture.draw(ASSETS / picture.file, picture.fingerprint)
    for name, result in originals(scale).items():
        page.write(result, ASSETS / PICTURES[name], ASSETS / PAGES[name], fingerprint_of(name, scale))
    for document in documents():
        document.write_text(tables.fill(document.read_text(), scale))


def documents() -> list[Path]:
    """Return the short page and those with all rows."""
    return [BENCHMARK, *sorted(DETAILS.glob("*.md"))]
