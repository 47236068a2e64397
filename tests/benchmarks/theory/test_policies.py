"""What the policies are worth, in simulated time, with fixed seeds: the same on every machine."""

from __future__ import annotations

import pytest

from batchers import Adaptive, Greedy, Options, Policy, Window
from benchmarks.policies.lengths import CLAIRVOYANT, OURS, SIMPLE, LengthsCase, measure
from benchmarks.policies.padding import length_of
from benchmarks.theory.bounds import Line, best_mean, closed_loop_bound, control_limit_mean, lower_bound
from benchmarks.theory.simulator import Bursts, Clients, Poisson, Recorded, Service, Simulated, Source, simulate

LINE = Line(0.01099, 0.00001, 200)


def run(policy: Policy, source: Source, items: int = 20_000, slots: int = 1) -> Simulated:
    """Simulate the model of the original benchmark."""
    options = Options(policy=policy, max_batch_size=LINE.most, concurrency=slots, max_queue_size=-1)
    return simulate(options, Service(LINE), source, items=items)


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Another one does not."""
    options = Options(policy=Adaptive(), max_queue_size=-1)
    service = Service(LINE, jitter=0.1)
    first, again, other = (
        simulate(options, service, Bursts(50, 3000), items=2000, seed=seed).model_dump_json() for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("rate", [60, 300, 2000, 10_000])
def test_greedy_is_what_theory_says(rate: int) -> None:
    """Within 1 % of the exact chain: nothing in the core waits by accident."""
    assert run(Greedy(), Poisson(rate), 60_000).mean == pytest.approx(control_limit_mean(LINE, rate), rel=0.01)


@pytest.mark.parametrize("rate", [20, 100, 200, 300, 1000, 5000])
def test_independent_callers_are_not_held(rate: int) -> None:
    """The mean within 1 % of the best that any waiting rule can do, the 99th percentile within 2 % of Greedy's."""
    greedy, adaptive = (run(policy, Poisson(rate)) for policy in (Greedy(), Adaptive()))
    best, _ = best_mean(LINE, rate)
    exact = control_limit_mean(LINE, rate)

    assert adaptive.mean / greedy.mean * exact <= 1.01 * best
    assert adaptive.p99 <= 1.02 * greedy.p99


@pytest.mark.parametrize("clients", [8, 32, 128, 512])
def test_clients_that_come_back(clients: int) -> None:
    """At least 84 % of the bound; Greedy gets about half of it until one cohort fills a batch."""
    bound = closed_loop_bound(LINE, clients, 0.0006)
    assert run(Adaptive(), Clients(clients)).throughput >= 0.84 * bound
    if clients < LINE.most:
        assert run(Greedy(), Clients(clients)).throughput <= 0.56 * bound


@pytest.mark.parametrize("clients", [1, 2])
def test_few_clients_lose_nothing(clients: int) -> None:
    """One has nobody to wait for; two gain a little."""
    assert run(Adaptive(), Clients(clients), 4000).throughput >= run(Greedy(), Clients(clients), 4000).throughput


@pytest.mark.parametrize("rate", [100, 300, 1000, 5000])
def test_four_devices(rate: int) -> None:
    """Starts that keep their distance: near the bound where it matters, no loss where it does not."""
    greedy, adaptive = (run(policy, Poisson(rate), 30_000, slots=4).mean for policy in (Greedy(), Adaptive()))
    assert adaptive <= 1.015 * greedy
    if rate == 5000:
        assert lower_bound(LINE, rate, 4) <= adaptive <= 0.0127


@pytest.mark.parametrize("policy", [Greedy(), Adaptive()], ids=repr)
@pytest.mark.parametrize(("speed_up", "best"), [((1.0, 1.0), 1), ((), 4)])
def test_automatic_concurrency(policy: Policy, speed_up: tuple[float, ...], best: int) -> None:
    """Nearly as fast as the number that is best for it: one for shared cores, four or more for devices."""
    service = Service(LINE, 0.05, speed_up)
    options = {"policy": policy, "max_batch_size": LINE.most, "max_queue_size": -1}
    auto, fixed = (
        simulate(Options(**options, concurrency=concurrency), service, Poisson(1000), items=30_000).mean  # type: ignore[arg-type]
        for concurrency in ("auto", best)
    )
    assert auto <= 1.05 * fixed


@pytest.mark.parametrize("load", [0.1, 0.3, 0.6, 0.8])
def test_a_slope_that_matters(load: float) -> None:
    """Starts that keep their distance are no worse where the time of a batch depends on its size."""
    line = Line(0.005, 0.0005, 64)
    greedy, adaptive = (
        simulate(
            Options(policy=policy, max_batch_size=line.most, concurrency=4, max_queue_size=-1),
            Service(line),
            Poisson(load * 4 * line.capacity),
            items=30_000,
        ).mean
        for policy in (Greedy(), Adaptive())
    )
    assert adaptive <= greedy


def test_bursts() -> None:
    """50 and 3000 a second in turns: within 1 % of Greedy."""
    greedy, adaptive = (run(policy, Bursts(50, 3000), 30_000).mean for policy in (Greedy(), Adaptive()))
    assert adaptive <= 1.01 * greedy


@pytest.mark.parametrize("source", [Poisson(100), Poisson(1000), Clients(8), Clients(128)], ids=str)
def test_no_fixed_window_is_better(source: Source) -> None:
    """Adaptive has at least 0.97 of the throughput of the best window, or at most 1/0.97 of its mean latency."""
    adaptive = run(Adaptive(), source, 8000)
    windows = [run(Window(seconds), source, 8000) for seconds in (0, 0.001, 0.002, 0.005, 0.01, 0.02)]
    if isinstance(source, Clients):
        assert adaptive.throughput >= 0.97 * max(found.throughput for found in windows)
    else:
        assert adaptive.mean <= min(found.mean for found in windows) / 0.97


def test_recorded_arrivals() -> None:
    """Three at once on an idle device, one while it runs: the first goes alone, then the others."""
    found = simulate(
        Options(max_queue_size=-1),
        Service(Line(1.0, 0.0, 9)),
        Recorded((1.0, 1.0, 1.0, 1.5)),
        items=4,
        warm_up=0.0,
    )
    assert found.items == 4
    assert found.mean == pytest.approx((1.0 + 2.0 + 2.0 + 1.5) / 4)


def test_shared_cores() -> None:
    """Two batches at a time that share one device take twice as long each; the same work is done."""
    options = Options(max_batch_size=1, concurrency=2, max_queue_size=-1)
    shared = Service(Line(1.0, 0.0, 1), speed_up=(1.0, 1.0))
    found = simulate(options, shared, Recorded((0.0, 0.0)), items=2, warm_up=0.0)
    assert found.mean == pytest.approx(2.0)
    alone = simulate(options, Service(Line(1.0, 0.0, 1)), Recorded((0.0, 0.0)), items=2, warm_up=0.0)
    assert alone.mean == pytest.approx(1.0)


def test_deadlines_are_counted() -> None:
    """Who waits too long is told, and is no part of the goodput."""
    options = Options(max_batch_size=1, max_queue_size=-1)
    found = simulate(
        options, Service(Line(1.0, 0.0, 1)), Recorded((0.0, 0.1, 0.2)), items=3, warm_up=0.0, deadline=2.5
    )
    assert (found.items, found.expired) == (2, 1)


@pytest.mark.parametrize("load", [1.3, 2.0])
def test_overload(load: float) -> None:
    """At least 99 % of the capacity is answered within 50 ms, and nobody is answered later."""
    options = Options(policy=Adaptive(), max_batch_size=LINE.most, max_queue_size=-1, timeout=0.05)
    found = simulate(options, Service(LINE), Poisson(load * LINE.capacity), items=60_000, deadline=0.05)

    assert found.goodput >= 0.99 * LINE.capacity
    assert found.p99 <= 0.05


@pytest.mark.parametrize("policy", [Greedy(), Window(0.01), Adaptive()])
def test_lengths(policy: Policy) -> None:
    """With any policy the option `length` serves more items a second than the order of arrival; nobody is lost."""
    service = Service(Line(0.006, 0.0, 32), d=0.00055)
    found = {
        name: simulate(
            Options(policy=policy, max_batch_size=32, max_queue_size=-1, length=length),
            service,
            Clients(32),
            items=1500,
            lengths=length_of,
            warm_up=0.0,
        )
        for name, length in (("order", None), ("length", float))
    }
    assert found["order"].items == found["length"].items == 1500
    assert found["length"].throughput > 2 * found["order"].throughput
    assert "length" in found["length"].reasons


def test_rules_for_lengths() -> None:
    """The library is nearly as good as the best simple rule, which knows a and b, and better than one by one."""
    found = measure(LengthsCase(a=0.011, b=0.00005, kind="clients", load=32, items=1500)).rules
    assert found[OURS].throughput > 0.9 * max(found[rule].throughput for rule in SIMPLE)
    assert found[OURS].throughput > found["one by one"].throughput
    assert found[CLAIRVOYANT].padding < found["in order"].padding
    late = measure(LengthsCase(a=0.006, b=0.00055, kind="poisson", load=1.3, items=1500)).rules
    assert not late["in order"].kept_up
    assert late[OURS].kept_up
