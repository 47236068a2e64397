"""The report says what the results say, and a result that is none is told in one line."""

from __future__ import annotations

import importlib
import inspect
import io
import itertools
import json
import socket
import warnings
from pathlib import Path
from typing import Any

import matplotlib.image
import psutil
import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import report, results, servers
from benchmarks.environment import Environment, environment
from benchmarks.faults import equal, mutants
from benchmarks.faults import plan as faults_plan
from benchmarks.faults.overload import RETRIERS, words_of
from benchmarks.faults.result import Fault, FaultResult
from benchmarks.fresh import MeasurementError
from benchmarks.latency import plan as latency_plan
from benchmarks.latency.result import Run, Sizes
from benchmarks.latency.run import Rate, RateResult
from benchmarks.lengths import run as texts
from benchmarks.lengths.result import CLOSED, OPEN, Open, TextsResult
from benchmarks.load import plan
from benchmarks.load.run import BOUNDS, Cell, LoadResult, Second, Summary, percentile
from benchmarks.micro import plan as micro_plan
from benchmarks.micro.run import Group, MicroResult
from benchmarks.peers import plan as peers_plan
from benchmarks.peers import replicas
from benchmarks.peers.http import CONNECTIONS, Loaded, ServerResult
from benchmarks.peers.replicas import ReplicaLoad, ReplicaResult
from benchmarks.policies import plan as policies_plan
from benchmarks.policies.closed_loop import CONNECTIONS as LOOP_CONNECTIONS
from benchmarks.policies.closed_loop import LoopResult, LoopRun
from benchmarks.policies.simulated import POLICIES, SimulatedResult
from benchmarks.report import fault_tables, load_tables, plots, tables
from benchmarks.report.markdown import MISSING, about
from benchmarks.report.start_table import PARTS
from benchmarks.results import Result, ResultFileError
from benchmarks.start import run as start_run
from benchmarks.start.run import StartResult
from benchmarks.theory.fit import Fit
from benchmarks.theory.simulator import Simulated

HERE = Environment(cpu="a processor", cores=2, kernel="6", python="3", versions={"numpy": "2"}, commit="abc")


def result(name: str, cell: Cell, mean: float = 0.0123) -> Result[LoadResult]:
    """Return a measurement that was never made."""
    second = Second(users=3, requests=4, failures=1, mean=mean, p95=None)
    histogram = [0] * (len(BOUNDS) + 1)
    histogram[10] = 4
    top = Summary(
        seconds=2,
        requests_per_second=2.0,
        failures_per_second=0.5,
        failures={"timeout": 1},
        mean=mean,
        p50=0.01,
        p95=0.02,
        p99=0.03,
        histogram=histogram,
    )
    measured = LoadResult(
        cell=cell, seconds=[second] * 3, top=top, batch_size_mean=1.5, cpu_seconds=1.0, resident_bytes=10**8
    )
    return Result(name=name, scale="full", environment=HERE, measured=measured)


@pytest.fixture(autouse=True, scope="module")
def fonts() -> None:
    """Let matplotlib open its fonts, which it keeps, before tests look for what they leave behind."""
    figure = Figure()
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlabel("text, $text$ and \N{SNOWMAN}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not every font has a snowman, so it looks into all of them
        figure.savefig(io.BytesIO())


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let results and reports be in a folder of the test's own."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(report, "ASSETS", tmp_path)
    monkeypatch.setattr(report, "BENCHMARK", tmp_path / "BENCHMARK.md")
    monkeypatch.setattr(report, "DETAILS", tmp_path / "pages")
    (tmp_path / "pages").mkdir()
    for document, text in emptied().items():
        place = tmp_path if document.name == "BENCHMARK.md" else tmp_path / "pages"
        (place / document.name).write_text(text)
    return tmp_path


def policies() -> None:
    """Write a result for all policies, simulated and behind the server."""
    figures = dict.fromkeys(("mean", "p50", "p95", "p99"), 0.01)
    simulated = Simulated(
        **figures,
        items=100,
        batch_size=2.0,
        utilisation=0.5,
        throughput=100.0,
        goodput=90.0,
        refused=1,
        expired=1,
        longest_hold=0.0,
        reasons={"full": 1},
    )
    bounds = ("best_mean", "greedy_mean", "lower_bound", "throughput_bound", "closed_form_unlimited_batches")
    theory = dict.fromkeys((*bounds, "best_control_limit"), 0.01)
    for name, case in policies_plan.cases("full").items():
        measured = SimulatedResult(case=case, policies=dict.fromkeys(POLICIES, simulated), theory=theory)
        results.write(Result(name=name, scale="full", environment=HERE, measured=measured))
    for name, loop in policies_plan.loops("full").items():
        loads = [
            Loaded(
                connections=number, requests=100 * number, seconds=1.0, p50=0.001, p99=0.003, failures=0, cpu=None
            )
            for number in LOOP_CONNECTIONS
        ]
        line = Fit(a=0.011, b=0.00001, batches=9)
        runs = [LoopRun(loaded=load, batch=2.0, line=line, reasons={}) for load in loads]
        looped = LoopResult(loop=loop, runs={"greedy": [runs, runs], "adaptive": [runs, runs]})
        results.write(Result(name=name, scale="full", environment=HERE, measured=looped))


def everything() -> None:
    """Write a result for all that is planned; one peer of each kind has failed."""
    policies()
    for name, cell in plan.cells("full").items():
        results.write(result(name, cell))
    run = Run(
        offered=100,
        answered=99,
        goodput=99.0,
        failures={"status 503": 1},
        mean=0.0123,
        p50=0.01,
        p95=0.02,
        p99=0.03,
        p999=0.04,
        lateness=0.0001,
        batches=Sizes(counts=[1, 2], mean=1.5),
        cpu_seconds_per_call=0.0001,
        resident_bytes=10**8,
    )
    for name, rate in latency_plan.rates("full").items():
        measured = RateResult(rate=rate, runs={"threading": [run, run], "asyncio": [run, run]})
        results.write(Result(name=name, scale="full", environment=HERE, measured=measured))
    for name, group in micro_plan.groups("full").items():
        times = {side.name: [5e-6, 5e-6] if "floor" in side.name else [9e-6, 10e-6, 11e-6] for side in group.sides}
        failed = {"batched": "it is not installed"}
        times.pop("batched", None)
        micro = MicroResult(group=group, seconds_per_item=times, failed=failed)
        results.write(Result(name=name, scale="full", environment=HERE, measured=micro))
    loads = [
        Loaded(connections=number, requests=2010, seconds=2.0, p50=0.001, p99=0.003, failures=10, cpu=25e-6)
        for number in CONNECTIONS
    ]
    for name, visit in peers_plan.visits("full").items():
        gone = visit.server == "Ray Serve"
        served = ServerResult(
            server=visit.server,
            loads=[] if gone else loads,
            resident_bytes=10**8,
            failed="it is not installed" if gone else "",
        )
        results.write(Result(name=name, scale="full", environment=HERE, measured=served))
    busy = ReplicaLoad(callers=8, rate=9.0, p99=0.1, mean_batch=2.0, wrong=0, no_outcome=0, cancelled=1, failed=0)
    for name, variant in replicas.names("full").items():
        in_ray = ReplicaResult(variant=variant, loads=[busy])
        results.write(Result(name=name, scale="full", environment=HERE, measured=in_ray))
    for name, fault in faults_plan.faults("full").items():
        gone = fault.subject == "batched"
        promised = faults_plan.SCENARIOS[fault.scenario].promised
        figures = {words: wanted.least or 0.0 for words, wanted in promised.items()}
        if fault.scenario == "storm":
            names = itertools.product(RETRIERS, (False, True))
            figures |= {words: 1.0 for number, waits in names for words in words_of(number, waits=waits)}
        broke = FaultResult(fault=fault, figures={} if gone else figures, failed="it is not there" if gone else "")
        results.write(Result(name=name, scale="full", environment=HERE, measured=broke))
    seconds = {part: [0.01, 0.02, 0.03] for part in PARTS}
    asked = texts.texts("full")
    opened = [Open(mean=0.1, p99=0.2, left=0.0)] * 3
    rates = {rule: [10.0, 20.0, 30.0] for rule in CLOSED}
    embedded = TextsResult(
        texts=asked,
        packages={},
        line=(0.01, 0.001, 0.001),
        closed=rates,
        rate=16.0,
        open=dict.fromkeys(OPEN, opened),
        padding={"threading": [0.1] * 3, "asyncio": [0.1] * 3},
    )
    results.write(Result(name="lengths/texts", scale="full", environment=HERE, measured=embedded))
    started = StartResult(repeats=3, seconds=seconds)
    results.write(Result(name="start/imports", scale="full", environment=HERE, measured=started))


DOCUMENTS = report.documents()


def emptied() -> dict[Path, str]:
    """Return the texts of all documents with their tables emptied."""
    return {file: tables.MARKER.sub(lambda found: found[1] + found[3], file.read_text()) for file in DOCUMENTS}


def written() -> str:
    """Return the texts of all documents, one after the other."""
    return "\n".join(file.read_text() for file in report.documents())


def test_tables_say_what_the_results_say() -> None:
    """All documents are as the command would write them, and each table stands in one of them."""
    scale = tables.scale_of(report.BENCHMARK.read_text())
    named = [found["name"] for file in DOCUMENTS for found in tables.MARKER.finditer(file.read_text())]
    assert sorted(named) == sorted(tables.TABLES)
    for file in DOCUMENTS:
        assert tables.fill(file.read_text(), scale) == file.read_text(), file.name


def test_the_short_page_is_short() -> None:
    """Nobody reads a long one."""
    assert len(report.BENCHMARK.read_text().splitlines()) <= 200


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.456, "0.46"),
        (6.05, "6.0"),
        (18.5, "18"),
        (99.6, "100"),
        (9.96, "10"),
        (0.996, "1.0"),
        (1234, "1 200"),
        (10_407, "10 000"),
    ],
)
def test_numbers_have_two_digits(number: float, text: str) -> None:
    """More would say more than was measured."""
    assert about(number) == text


def test_pictures_are_as_new_as_their_results() -> None:
    """Each carries the fingerprint of the files that it was drawn from."""
    scale = tables.scale_of(report.BENCHMARK.read_text())
    for picture in report.pictures(scale):
        with Image.open(report.ASSETS / picture.file) as drawn:
            assert drawn.info[plots.SOURCE] == picture.fingerprint, picture.file
    for name, file in report.PAGES.items():
        assert report.fingerprint_of(name, scale) in (report.ASSETS / file).read_text()


def test_nothing_is_too_large() -> None:
    """What is generated stays below two megabytes each."""
    for file in report.ASSETS.rglob("*"):
        assert file.is_dir() or file.stat().st_size < 2_000_000, file


def test_a_report_of_all_there_can_be(elsewhere: Path) -> None:
    """Every table, picture and page is written, and a second time changes nothing."""
    everything()
    report.write("full")
    text = written()

    assert "| not measured" not in text
    assert "| optimized_predict-compiled-asyncio-1 | 2.0 | 0.50 | 12.3 | 10.0 | 20.0 | 30.0 | 1.5 | 1.0 |" in text
    assert "| predict-keras | 2.0 | 0.50 | 12.3 | 10.0 | 20.0 | 30.0 |  | 1.0 |" in text
    assert "a processor, 2 cores" in text
    assert "| 64 coroutines | asyncio-async | 100000 | 10.00 | 20.0 % | 0.50 |" in text
    assert "| 1 threads | batched | failed: it is not installed |" in text
    assert "| 1000000 | asyncio | 10.00 | 20.0 % | 1.00 |" in text
    assert "| `import batchers`, after it | 20.0 | 100.0 % |" in text
    assert "| http-compiled-500 | threading | 12.3 (12.3 to 12.3) | 10.0 | 20.0 | 30.0 | 40.0 | 99 |" in text
    assert "| less than the spread |" in text
    assert "the difference between the backends is smaller than between two runs of one backend" in text
    assert "| **batchers, `asyncio`** | 1 000 | 1 000 | 1 000 | 100 |" in text
    assert "| batchers, `asyncio` | 10 | 10 | 10 | 10 |" in text
    assert "| `threading`, ramp of v0.1.0 | never | 25 % | 12 | 20 |" in text
    assert "| `length=len`, `asyncio` | 20 (10 to 30) | 1.0 |" in text
    assert "| mosec | 1000 (1000 to 1000), 3.0 ms | " in text
    assert "| Ray Serve | failed: it is not installed |" in text
    assert "| compiled | mean, ms | 12.3 (12.3 to 12.3) | 12.3 (12.3 to 12.3) | less than the spread |" in text
    drawn = (plots.COMPARISON, plots.AGAINST_RATE, plots.SERVERS, plots.BATCHING, plots.POLICIES, plots.RETRIES)
    for file in [*report.PICTURES.values(), *drawn]:
        assert matplotlib.image.imread(elsewhere / file).shape[2] == 4
    for file in report.PAGES.values():
        page = (elsewhere / file).read_text()
        assert "timeout" in page
        assert "http" not in page.replace("xhttp", "")
    report.write("full")
    assert written() == text


def test_a_report_of_nothing(elsewhere: Path) -> None:
    """Rows say so."""
    report.write("full")
    text = written()
    assert "| predict-compiled | not measured |" in text
    assert "Nothing was measured yet." in text
    assert text.count(MISSING) > 10


@pytest.mark.parametrize(
    "kept",
    ["latency/process", "peers/http/batchers-asyncio-2-processes", "simulated-original-poisson", "devices-"],
)
def test_a_report_of_a_part(elsewhere: Path, kept: str) -> None:
    """An interrupted run can be reported: rows and pictures without results are left out."""
    everything()
    for file in (elsewhere / "results").rglob("*.json"):
        if kept not in str(file):
            file.unlink()
    report.write("full")
    assert MISSING in written()


@pytest.mark.parametrize("text", ["", "{", '{"name": "x"}', "[]", "\x00"])
def test_a_file_that_is_no_result(elsewhere: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names it; it is left alone, and so are the others."""
    file = results.path_of("load/predict-compiled", "full")
    file.parent.mkdir(parents=True)
    file.write_text(text)

    with pytest.raises(ResultFileError, match=r"results/full/load/predict-compiled\.json: .*; remove the file"):
        results.read("load/predict-compiled", "full", LoadResult)
    assert command.main(["report"]) == 1
    assert capsys.readouterr().err.startswith("error: results/full/load/predict-compiled.json")
    assert file.read_text() == text


def test_a_run_goes_on_where_it_was(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured in the same way is kept; a server that dies costs its own measurement only."""
    monkeypatch.setattr(command, "environment", lambda: HERE)
    measured: list[Cell] = []

    def measure(cell: Cell, _: int | None) -> LoadResult:
        measured.append(cell)
        if cell.path == "/predict" and cell.model_call == "keras":
            msg = "the server has died"
            raise servers.ServerError(msg)
        return result("", cell).measured

    others: list[Rate | Group | Fault | str] = []

    def measure_rate(rate: Rate, _: int | None) -> RateResult:
        others.append(rate)
        return RateResult(rate=rate, runs={})

    def measure_micro(group: Group) -> MicroResult:
        others.append(group)
        return MicroResult(group=group, seconds_per_item={}, failed={})

    def measure_server(server: str, _: int) -> ServerResult:
        others.append(server)
        return ServerResult(server=server, loads=[], resident_bytes=0, failed="")

    def measure_replica(variant: str) -> ReplicaResult:
        others.append(variant)
        return ReplicaResult(variant=variant, loads=[])

    def measure_fault(fault: Fault) -> FaultResult:
        others.append(fault)
        return FaultResult(fault=fault, figures={})

    monkeypatch.setattr(faults_plan, "measure", measure_fault)
    monkeypatch.setattr(replicas, "measure", measure_replica)
    monkeypatch.setattr(command, "measure_load", measure)
    monkeypatch.setattr(command, "measure_rate", measure_rate)
    monkeypatch.setattr(command, "measure_micro", measure_micro)
    monkeypatch.setattr(command, "measure_server", measure_server)
    monkeypatch.setattr(command, "measure_case", lambda case: SimulatedResult(case=case, policies={}, theory={}))
    monkeypatch.setattr(texts, "is_installed", lambda: False)
    monkeypatch.setattr(start_run, "measure", lambda repeats: StartResult(repeats=repeats, seconds={}))
    monkeypatch.setattr(report, "write", lambda _: None)
    count = len(plan.cells("quick"))
    assert command.main(["quick"]) == 1
    assert len(measured) == count
    rates, groups, faults = latency_plan.rates("quick"), micro_plan.groups("quick"), faults_plan.faults("quick")
    assert len(others) == len(rates) + len(groups) + len(faults)
    measured.clear()
    others.clear()
    assert command.main(["quick"]) == 1
    assert [cell.model_call for cell in measured] == ["keras"]
    assert not others, "nothing that is whole is measured again"
    measured.clear()
    assert command.main(["quick", "--again", "--only", "original/"]) == 0
    assert len(measured) == 3
    assert command.main(["peers"]) == 0
    assert len(others) == len(peers_plan.visits("full")) + len(replicas.names("full"))
    measured.clear()
    assert command.main(["load", "--only", "compiled"]) == 0
    assert len(measured) == 5, "another scale is another measurement"


def test_promises(elsewhere: Path) -> None:
    """The table shows who failed; what a backend did not keep is named, and what a peer did not is no promise."""
    assert fault_tables.promise_sentence("full") == "Nothing was measured yet.\n"
    everything()
    assert "failed: it is not there" in fault_tables.fault_table("full")
    assert ". 0 are outside.\n" in fault_tables.promise_sentence("full")
    assert "Not measured" not in fault_tables.promise_sentence("full")
    for subject in ("asyncio", "async-batcher"):
        name = f"faults/sigterm-{subject}"
        lost = FaultResult(fault=faults_plan.faults("full")[name], figures={"accepted, but no answer": 3})
        results.write(Result(name=name, scale="full", environment=HERE, measured=lost))
    assert [each[:4] for each in fault_tables.broken_promises("full")] == [
        ("sigterm", "asyncio", "accepted, but no answer", 3)
    ]
    told = fault_tables.promise_sentence("full")
    assert ". 1 are outside:\n" in told
    assert (
        "batchers, asyncio, SIGTERM at random moments, 50 clients: accepted, but no answer is 3, limit 0" in told
    )
    results.path_of("faults/kill-threading", "full").unlink()
    told = fault_tables.promise_sentence("full")
    assert told.endswith("\nNot measured: batchers, threading, kill -9 of one of two workers, 200 clients.\n")


@pytest.mark.parametrize("entry", equal.EQUAL, ids=lambda entry: f"{entry.function}: {entry.was}"[:60])
def test_mutants_that_are_equal(entry: equal.Equal) -> None:
    """The function has the part, in no other lines than are meant."""
    room, module, *names = entry.function.split(".")
    found: Any = importlib.import_module(f"batchers.{room}.{module}")
    for name in names:
        found = getattr(found, name)
    lines = inspect.getsource(found).splitlines()
    assert sum(entry.was in line.partition("  # ")[0] for line in lines) == entry.lines


@pytest.mark.parametrize(
    ("was", "became", "is_equal"),
    [
        ('cast("int", x)', "cast(None, x)", True),
        ('cast("int", x)', 'cast("int", y)', False),
        ("broadcast(1, x)", "broadcast(2, x)", False),
        ("zip(a, b, strict=True)", "zip(a, b, )", True),
        ("zip(a, b, strict=True)", "zip(a, a, strict=False)", False),
    ],
)
def test_mutants_that_are_equal_anywhere(was: str, became: str, is_equal: bool) -> None:
    """A type that is told to type checkers, and a check of lengths."""
    mutant = mutants.Survivor(module="core.x", function="y", was=was, became=became, state="survived")
    assert bool(equal.why_equal(mutant)) is is_equal


def test_mutants(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutants are counted by module; what mutmut is not sure of counts as not noticed; equal ones do not run."""
    diff = """--- batchers/core/machine.py
+++ batchers/core/machine.py
@@ -1,3 +1,3 @@
 def f():
-    return a or b  # as long as it goes
+    return a and b  # as long as it goes
"""
    states = {
        "batchers.core.machine.xǁCoreǁf__mutmut_1": "killed",
        "batchers.core.machine.xǁCoreǁf__mutmut_2": "not checked",
        "batchers.policies.cost_model.x_g__mutmut_1": "timeout",
        "batchers.policies.cost_model.x_g__mutmut_2": "no tests",
    }
    made = mutants.read(json.dumps([(name, state, diff) for name, state in states.items()]))
    found = mutants.counted(made)
    assert found.made == {"core.machine": 2, "policies.cost_model": 2}
    changed = {"was": "return a or b", "became": "return a and b"}
    assert found.survived == [
        mutants.Survivor(module="core.machine", function="Core.f", state="not checked", **changed),
        mutants.Survivor(module="policies.cost_model", function="g", state="no tests", **changed),
    ]
    with pytest.raises(MeasurementError, match="mutmut made nothing: error: no such option"):
        mutants.read("error: no such option")
    with pytest.raises(MeasurementError, match="mutmut made nothing"):
        mutants.read("[]")
    assert fault_tables.mutant_table("full") == "Not measured at this scale.\n"
    assert fault_tables.survivor_table("full") == "Not measured at this scale.\n"
    results.write(Result(name=faults_plan.MUTANTS, scale="full", environment=HERE, measured=found))
    monkeypatch.setattr(equal, "EQUAL", (equal.Equal("core.machine.Core.f", "a or b", "a and b", "a is b"),))
    assert mutants.to_run(made, equal.why_equal) == list(states)[2:]
    assert "| all | 4 | 2 | 1 |" in fault_tables.mutant_table("full")
    told = fault_tables.survivor_table("full")
    assert "| `core.machine.Core.f` | `return a or b` | `return a and b` | a is b |" in told
    assert "| `policies.cost_model.g` | `return a or b` | `return a and b` | **it is not** |" in told


@pytest.mark.parametrize(
    ("wanted", "value", "holds", "words"),
    [
        (faults_plan.Range(most=0), 0.0, True, "0"),
        (faults_plan.Range(most=0), 1.0, False, "0"),
        (faults_plan.Range(most=2.0), 2.0, True, "at most 2"),
        (faults_plan.Range(least=0.9), 0.89, False, "at least 0.9"),
        (faults_plan.Range(least=1, most=2), 1.0, True, "at least 1 and at most 2"),
    ],
)
def test_ranges(wanted: faults_plan.Range, value: float, holds: bool, words: str) -> None:
    """Both ends belong to what is promised."""
    assert (wanted.holds(value), str(wanted)) == (holds, words)


@pytest.mark.parametrize("installed", [True, False])
def test_what_is_asked_for_exists(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    """A name that no measurement has, or a backend that there is not, is told in one line."""
    monkeypatch.setattr(texts, "is_installed", lambda: installed)
    assert command.main(["load", "--only", "nothing"]) == 2
    assert capsys.readouterr().err == "error: no full measurement has load/...nothing in its name\n"
    with pytest.raises(SystemExit):
        command.main(["cell", "--backend", "foo"])
    assert "argument --backend: invalid choice: 'foo'" in capsys.readouterr().err


def test_a_cell_of_ones_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is measured as it was asked for, and printed."""
    asked: list[Cell] = []

    def measure(cell: Cell, _: int | None) -> LoadResult:
        asked.append(cell)
        if cell.workers > 2:
            msg = "too many"
            raise servers.ServerError(msg)
        return result("", cell).measured

    monkeypatch.setattr(command, "measure_load", measure)
    arguments = ["cell", "--backend", "threading", "--workers", "2", "--set", "BATCHER_CONCURRENCY=4"]
    assert command.main(arguments) == 0
    assert asked[0].backend == "threading"
    assert asked[0].workers == 2
    assert asked[0].settings == {"BATCHER_CONCURRENCY": "4"}
    assert '"requests_per_second": 2.0' in capsys.readouterr().out
    assert command.main(["cell", "--workers", "3"]) == 1
    assert "error: too many" in capsys.readouterr().err


def test_code_that_changes_while_it_is_measured(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is not what was started, so it is not kept."""
    commits = iter(["abc", "abc", "def"])
    monkeypatch.setattr(command, "environment", lambda: HERE.model_copy(update={"commit": next(commits)}))
    monkeypatch.setattr(command, "measure_load", lambda cell, _: result("", cell).measured)
    monkeypatch.setattr(report, "write", lambda _: None)

    assert command.main(["load", "--only", "original/optimized"]) == 1
    assert len(results.provenance("full")) == 1


def test_a_port_that_is_taken() -> None:
    """One line that says so, whoever has it: a server that answers would be measured in place of ours."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(servers.ServerError, match=r"port \d+ cannot be used: Address already in use"),
            servers.serve({"MODEL_CALL": "emulated"}, port=taken.getsockname()[1]),
        ):
            pass


def test_a_setting_that_is_wrong() -> None:
    """The server's own line is passed on."""
    with (
        pytest.raises(servers.ServerError, match="did not start: error: BATCHER_BACKEND=foo: must be"),
        servers.serve({"BATCHER_BACKEND": "foo"}),
    ):
        pass


def test_a_server_that_dies() -> None:
    """It is noticed by whoever looks, and what its log says is passed on."""
    with servers.serve({"MODEL_CALL": "emulated"}) as server:
        assert server.usage().resident_bytes > 0
        server.process.kill()
        server.process.wait()
        for look in (server.check, server.usage, server.stats):
            with pytest.raises(servers.ServerError, match="the server has died"):
                look()


def test_nothing_of_a_server_is_left() -> None:
    """Neither its children nor what has left its first process behind."""
    with servers.launch(["sh", "-c", "sleep 99 & sleep 99"], {}, lambda: True) as running:
        process = psutil.Process(running.process.pid)
        while not (found := process.children()):
            running.check()
    assert found
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in found)


def test_the_environment() -> None:
    """It knows the machine and what is installed."""
    here = environment()

    assert here.cores >= 1
    assert here.cpu
    assert here.versions["numpy"]
    assert here.caption.startswith(here.cpu)


def test_where_failures_start() -> None:
    """More than one of a hundred in five seconds, and not before."""
    fine = Second(users=1, requests=100, failures=0, mean=0.1, p95=0.1)
    worse = fine.model_copy(update={"failures": 6, "requests": 200})

    assert load_tables.failures_start([fine] * 9) is None
    assert load_tables.failures_start([fine] * 9 + [worse]) is None
    assert load_tables.failures_start([fine] * 9 + [worse] * 5) == 140.0
    assert load_tables.failures_start([fine] * 4) is None


def test_percentiles() -> None:
    """Of many values, of two, and of one."""
    assert percentile([float(n) for n in range(101)], 95) == 95.0
    assert percentile([1.0, 2.0], 50) == 1.5
    assert percentile([7.0], 99) == 7.0


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [
        (0.8119, faults_plan.Range(least=0.9), "0.81"),
        (1.0305, faults_plan.Range(most=1.03), "1.0305"),
        (6.0, faults_plan.Range(most=0), "6"),
    ],
)
def test_a_figure_outside_of_its_limit(value: float, limit: faults_plan.Range, shown: str) -> None:
    """It has as many digits as show that it is outside, and two at least."""
    assert fault_tables.outside(value, limit) == shown
