"""The table of a real model and texts of different lengths."""

from __future__ import annotations

from statistics import median

from benchmarks.lengths.result import CLAIRVOYANT, CLOSED, ONE_BY_ONE, OURS, Open, TextsResult
from benchmarks.results import read
from benchmarks.scale import Scale

from .markdown import ms, percent, table

NAMES = {"threading": "`length`, threading", "asyncio": "`length`, asyncio"}
BEHIND = 0.1
"""The share of the texts without an answer above which a rule does not keep up."""


def texts_table(scale: Scale) -> str:
    """Return each rule: texts a second in the closed loop, and times in the open one."""
    found = read("lengths/texts", scale, TextsResult)
    if found is None:
        return table(["rule", "texts/s"], [["all", "not measured"]])
    result = found.measured
    rates = {rule: median(values) for rule, values in result.closed.items()}
    means = {rule: median(each.mean for each in runs) for rule, runs in result.open.items()}
    head = ["rule", f"texts/s, {result.texts.clients} clients", "against one by one", "against clairvoyant"]
    head += ["padding", f"mean, p99 in ms at {result.rate:.0f} texts/s", "mean: clairvoyant's against it"]
    rows = [
        [
            *(NAMES.get(rule, rule), f"{rates[rule]:.1f}", f"{rates[rule] / rates[ONE_BY_ONE]:.2f}"),
            f"{rates[rule] / rates[CLAIRVOYANT]:.2f}",
            percent(median(result.padding[rule])) if rule in OURS else "",
            *_open(result.open.get(rule, [])),
            f"{means[CLAIRVOYANT] / means[rule]:.2f}" if rule in OURS else "",
        ]
        for rule in CLOSED
    ]
    return table(head, rows)


def _open(runs: list[Open]) -> list[str]:
    if not runs or median(run.left for run in runs) > BEHIND:
        return ["does not keep up"]
    return [f"{ms(median(run.mean for run in runs))}, {ms(median(run.p99 for run in runs))}"]
