"""The table of what breaks, and the sentence about what is promised then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from benchmarks.faults.equal import why_equal
from benchmarks.faults.mutants import NOTICED, MutantsResult, Survivor
from benchmarks.faults.plan import MUTANTS, SCENARIOS, Range, faults
from benchmarks.faults.result import OURS, SUBJECTS, FaultResult, Subject
from benchmarks.results import Result, read
from benchmarks.scale import Scale

from .markdown import table

NAMES: dict[Subject, str] = {
    "threading": "batchers, threading",
    "asyncio": "batchers, asyncio",
    "async-batcher": "async-batcher",
    "batched": "batched",
}

FINE = 1000
"""From here on a figure needs no digits after the point."""


GOODPUT = (
    "overload",
    "answered, share of the capacity",
    "share of the capacity that is answered in time, at ten times the capacity",
)
"""Scenario, figure, and words: what is left of the capacity."""


def fault_results(scale: Scale) -> dict[str, dict[Subject, FaultResult]]:
    """Return what was measured: for each scenario, by subject."""
    found: dict[str, dict[Subject, FaultResult]] = {}
    for name, fault in faults(scale).items():
        result = read(name, scale, FaultResult)
        if result is not None:
            found.setdefault(fault.scenario, {})[fault.subject] = result.measured
    return found


def storm_results(scale: Scale) -> dict[str, Result[FaultResult]]:
    """Return what was measured of clients that come again, by backend."""
    found = ((subject, read(f"faults/storm-{subject}", scale, FaultResult)) for subject in OURS)
    return {subject: result for subject, result in found if result is not None}


def fault_table(scale: Scale) -> str:
    """Return one row for each figure of each scenario."""
    rows = []
    measured = fault_results(scale)
    for name, scenario in SCENARIOS.items():
        results = measured.get(name, {})
        figures = list(dict.fromkeys(figure for result in results.values() for figure in result.figures))
        if not figures:
            rows.append([scenario.words, "not measured"])
        for place, figure in enumerate(figures):
            promised = scenario.promised.get(figure)
            rows.append(
                [
                    scenario.words if place == 0 else "",
                    figure,
                    str(promised or ""),
                    *(_cell(results.get(subject), figure, promised, first=place == 0) for subject in SUBJECTS),
                ]
            )
    head = ["what breaks", "figure", "limit", *(NAMES[subject] for subject in SUBJECTS)]
    return table(head, rows, texts=3)


def _cell(result: FaultResult | None, figure: str, promised: Range | None, *, first: bool) -> str:
    if result is None:
        return ""
    if result.failed:
        return f"failed: {result.failed}" if first else ""
    value = result.figures.get(figure)
    if value is None:
        return ""
    if value == round(value) or abs(value) >= FINE:
        return f"{value:.0f}"
    if promised is not None and result.fault.subject in OURS and not promised.holds(value):
        return outside(value, promised)
    return f"{value:.3g}"


def outside(value: float, promised: Range) -> str:
    """Return a value outside of its limit with two digits, or with as many more as show that it is outside."""
    texts = [f"{value:.{digits}g}" for digits in range(2, 6)]
    return next((text for text in texts if not promised.holds(float(text))), texts[-1])


def mutant_table(scale: Scale) -> str:
    """Return the mutants of each pure module, how many of them no test noticed, and how many of those matter."""
    found = read(MUTANTS, scale, MutantsResult)
    if found is None:
        return "Not measured at this scale.\n"
    made = Counter(found.measured.made)
    unnoticed = _unnoticed(found.measured)
    survived = Counter(each.module for each in unnoticed)
    matter = Counter(each.module for each in unnoticed if not why_equal(each))
    rows = [[f"`{name}`", f"{made[name]}", f"{survived[name]}", f"{matter[name]}"] for name in sorted(made)]
    rows.append(["all", f"{made.total()}", f"{survived.total()}", f"{matter.total()}"])
    return table(["module", "mutants", "not noticed", "not equal in meaning"], rows)


def _unnoticed(found: MutantsResult) -> list[Survivor]:
    return [each for each in found.survived if each.state not in NOTICED]


def survivor_table(scale: Scale) -> str:
    """Return the mutants that no test noticed, and why they are equal in meaning to what they came from."""
    found = read(MUTANTS, scale, MutantsResult)
    if found is None:
        return "Not measured at this scale.\n"
    rows = []
    for each in _unnoticed(found.measured):
        why = why_equal(each) or "**it is not**"
        rows.append([f"`{each.module}.{each.function}`", _code(each.was), _code(each.became), why])
    return table(["where", "line", "mutant", "why it is equal"], rows, texts=4)


def _code(line: str) -> str:
    return f"`{line}`".replace("|", "\\|") if line else "(nothing)"


def broken_promises(scale: Scale) -> Iterator[tuple[str, Subject, str, float, Range]]:
    """Yield what our backends did not keep: scenario, backend, figure, value, and what was promised."""
    for name, results in fault_results(scale).items():
        for subject in OURS:
            if subject not in results:
                continue
            for figure, promised in SCENARIOS[name].promised.items():
                value = results[subject].figures.get(figure)
                if value is not None and not promised.holds(value):
                    yield name, subject, figure, value, promised


def promise_sentence(scale: Scale) -> str:
    """Say what is kept, what is not, and what nobody knows yet."""
    measured = fault_results(scale)
    ours = [fault for fault in faults(scale).values() if fault.subject in OURS]
    known = [fault for fault in ours if fault.subject in measured.get(fault.scenario, {})]
    if not known:
        return "Nothing was measured yet.\n"
    kept = sum(
        figure in measured[fault.scenario][fault.subject].figures
        for fault in known
        for figure in SCENARIOS[fault.scenario].promised
    )
    broken = [
        f"{NAMES[subject]}, {SCENARIOS[name].words}: {figure} is {outside(value, promised)}, limit {promised}"
        for name, subject, figure, value, promised in broken_promises(scale)
    ]
    lines = [f"{kept} figures have a limit (column *limit*). {len(broken)} are outside{':' if broken else '.'}\n"]
    lines += [f"* {each}" for each in broken]
    missing = [
        f"{NAMES[fault.subject]}, {SCENARIOS[fault.scenario].words}" for fault in ours if fault not in known
    ]
    if missing:
        lines.append(f"\nNot measured: {'; '.join(missing)}.")
    return "\n".join(lines) + "\n"
