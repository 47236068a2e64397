"""Front ends and one process with the model, in simulated time."""

from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as command
from benchmarks.theory.bounds import Line
from benchmarks.theory.processes import FRONT_END, MODEL, MODEL_LOOP, Costs, Loop, NotPositiveError, simulate

COSTS = Costs(
    client=Loop(1e-6, 2e-6),
    front_end=Loop(10e-6, 5e-6),
    model_loop=Loop(20e-6, 3e-6),
    model=Line(100e-6, 4e-6, 50),
)
ALONE = 3e-6 + 2 * 15e-6 + 2 * 23e-6 + 104e-6


@pytest.mark.parametrize(("front_ends", "cores"), [(1, 1), (2, 16)])
def test_a_lone_client_pays_for_each_turn(front_ends: int, cores: int) -> None:
    """Nothing overlaps, so neither cores nor front ends help."""
    found = simulate(front_ends, 1, cores, answers=1000, costs=COSTS)
    assert found.requests_per_second == pytest.approx(1 / ALONE)
    assert found.batch_size == 1
    assert found.cores_used == pytest.approx(1)


@pytest.mark.parametrize(
    ("station", "costs", "front_ends", "most"),
    [
        (FRONT_END, Costs(front_end=Loop(0.0, 50e-6)), 1, 1 / 100e-6),
        (FRONT_END, Costs(front_end=Loop(0.0, 50e-6)), 2, 2 / 100e-6),
        (MODEL_LOOP, Costs(model_loop=Loop(0.0, 50e-6)), 2, 1 / 100e-6),
        (MODEL, Costs(model=Line(0.02, 0.0, 64)), 2, 64 / 0.02),
    ],
)
def test_the_slowest_thread_is_the_bound(station: str, costs: Costs, front_ends: int, most: float) -> None:
    """With a core for each thread and connections enough, it is always busy."""
    found = simulate(front_ends, 512, 16, answers=20_000, costs=costs)
    assert found.busy[station] == pytest.approx(1.0, abs=0.05)
    assert most * 0.9 <= found.requests_per_second <= most * 1.01


def test_one_core_is_shared() -> None:
    """All the work of all threads takes its time, one after the other."""
    one, few, many = (simulate(2, 64, cores, answers=20_000, costs=COSTS) for cores in (1, 2, 16))
    assert one.cores_used == pytest.approx(1.0)
    assert 1.0 < few.cores_used <= many.cores_used
    assert one.requests_per_second < few.requests_per_second <= many.requests_per_second
    work = {
        found.cores_used / found.requests_per_second for found in (one, few)
    }  # a request, in seconds of a core
    assert max(work) < 1.5 * min(work)


def test_only_answers_count() -> None:
    """Not the first requests of all connections."""
    few = simulate(1, 256, 16, answers=300, costs=COSTS)
    many = simulate(1, 256, 16, answers=20_000, costs=COSTS)
    assert few.requests_per_second == pytest.approx(many.requests_per_second, rel=0.5)


def test_the_same_numbers_give_the_same_result() -> None:
    """There is no chance in it."""
    assert simulate(3, 100, 4, answers=5000) == simulate(3, 100, 4, answers=5000)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints JSON, and refuses a number that makes no sense."""
    assert command.main(["front-ends", "--connections", "8", "--answers", "1000"]) == 0
    assert json.loads(capsys.readouterr().out)["requests_per_second"] > 0
    assert command.main(["front-ends", "--cores", "0"]) == 2
    assert "must be 1 or more" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(NotPositiveError):
        simulate(0, 1, 1)
