"""Which micro measurements there are: our cases, the floors, and the peers."""

from __future__ import annotations

from benchmarks.scale import Scale

from .run import Group, Side

CASES = "benchmarks/micro/test_calls.py"
ARRAYS = "benchmarks/micro/test_arrays.py"
PEERS = "benchmarks/peers/test_calls.py"

COROUTINES = {
    "asyncio-floor": "",
    "asyncio-async": "asyncio-floor",
    "asyncio-sync": "",
    "threading-floor": "",
    "threading-sync": "threading-floor",
    "threading-async": "",
}
"""Sides and their floors. The floor is measured only for each backend's native function type."""

THREADS = {
    "floor": "",
    "threading-sync": "floor",
    "threading-async": "",
    "asyncio-sync": "",
    "asyncio-async": "",
}


def groups(scale: Scale) -> dict[str, Group]:
    """Return the measurements by their names. A quick one is measured once, without peers."""
    full = scale == "full"
    found: dict[str, list[Side]] = {}
    for callers in (1, 64, 1000):
        sides = [_ours("coroutines", side, floor, callers) for side, floor in COROUTINES.items()]
        if full:
            peers = ("async-batcher", "batched", "aiodataloader", "bentoml")
            sides += [_peer("coroutines", peer, callers) for peer in peers]
            sides += [_peer("coroutines", peer, callers, window=True) for peer in ("async-batcher", "batched")]
        found[f"coroutines-{callers}"] = sides
    for callers in (1, 64, 256):
        sides = [_ours("threads", side, floor, callers) for side, floor in THREADS.items()]
        if full:
            sides += [_peer("threads", "batched", callers, window=window) for window in (False, True)]
        found[f"threads-{callers}"] = sides
    lengths = (100, 1_000, 10_000, 100_000, 1_000_000) if full else (1_000, 100_000)
    found["queue-length"] = _both("queue_length", lengths, floors=True)
    found["cancelled"] = _both("cancelled", lengths[1:] if full else lengths)
    for kind in ("groups", "priorities", "deadlines"):
        found[kind] = _both("kinds", (1, 100, 10_000) if full else (1, 10_000), kind)
    for model in ("scikit-learn", "keras"):
        found[f"arrays-{model}"] = [
            Side(
                name=f"{function}-{backend}",
                case=f"{ARRAYS}::test_arrays[{model}-{function}-{backend}]",
                floor="" if function == "by-hand" else f"by-hand-{backend}",
            )
            for backend in ("threading", "asyncio")
            for function in ("by-hand", "stacked", "rows")
        ]
    found["batch-size"] = _both("batch_size", (1, 16, 256, 4096))
    return {f"micro/{name}": Group(sides=sides, repeats=_repeats(name, scale)) for name, sides in found.items()}


def _repeats(name: str, scale: Scale) -> int:
    """Return how often a group is measured: calls, which are compared with peers, more often than the rest."""
    if scale == "quick":
        return 1
    return 5 if name.startswith(("coroutines", "threads", "arrays")) else 3


def _ours(test: str, side: str, floor: str, callers: int) -> Side:
    return Side(name=side, case=f"{CASES}::test_{test}[{side}-{callers}]", floor=floor)


def _peer(test: str, peer: str, callers: int, *, window: bool = False) -> Side:
    name, case = (f"{peer} (default window)", f"{test}_default_window") if window else (peer, test)
    return Side(name=name, case=f"{PEERS}::test_{case}[{peer}-{callers}]")


def _both(test: str, numbers: tuple[int, ...], kind: str = "", *, floors: bool = False) -> list[Side]:
    backends = ("threading", "threading-floor", "asyncio", "asyncio-floor") if floors else ("threading", "asyncio")
    return [
        Side(name=f"{backend}-{number}", case=f"{CASES}::test_{test}[{'-'.join(filter(None, parts))}]")
        for number in numbers
        for backend in backends
        for parts in [(backend, kind, str(number))]
    ]
