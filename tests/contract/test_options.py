"""Options are checked when the batcher is made, and each message names the option."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import enum
import inspect
import math
import pickle
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from batchers import (
    Adaptive,
    AsyncioBatcher,
    Batcher,
    BatcherError,
    BatcherOptions,
    BatcherStats,
    Dispatch,
    Greedy,
    HistogramSnapshot,
    ItemCostError,
    OptionError,
    Options,
    ThreadingBatcher,
    Window,
    batched,
    create_batcher,
)
from batchers.decorator import Backend
from tests.support.children import run
from tests.support.gate import Gate

BAD: dict[str, list[Any]] = {
    "max_batch_size": [0, -2, 1.5, math.nan, math.inf, True, "5", None],
    "concurrency": [0, -2, 1.5, True, "5", None],
    "max_queue_size": [0, -2, 1.5, True, "5", None],
    "max_queue_time": [-1, -0.001, math.nan, math.inf, True, "5"],
    "timeout": [0, -1, math.nan, True, "5"],
    "batch_timeout": [0, -1, math.nan, True, "5"],
    "policy": ["greedy", Window, 0.1, ...],
    "convert": ["key", 3],
    "group_by": ["key", 3],
    "on_error": ["Fail", None, True],
    "cancel_abandoned": ["yes", 1, None],
    "executor": ["pool", 4],
    "name": [b"bytes", 4],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option in BAD for value in BAD[option]], ids=repr
)
def test_bad_values(backend: str, option: str, value: Any) -> None:
    """Refused with the option's name and the value."""
    with pytest.raises(OptionError, match=option) as caught:
        create_batcher(backend, list, **{option: value})

    assert repr(value) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "options",
    [
        {"max_queue_time": 1.0, "policy": Greedy()},
        {"cost": len},
        {"max_batch_cost": 5.0},
        {"cost": len, "max_batch_cost": 0},
        {"cost": len, "max_batch_cost": math.nan},
        {"cost": 5, "max_batch_cost": 5},
    ],
    ids=repr,
)
def test_options_that_contradict_each_other(backend: str, options: dict[str, Any]) -> None:
    """Nothing is accepted and ignored."""
    with pytest.raises(OptionError):
        create_batcher(backend, list, **options)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "1", None, False])
def test_bad_windows(seconds: Any) -> None:
    """A window is a finite span of time."""
    with pytest.raises(OptionError, match="finite number of seconds"):
        Window(seconds)


@pytest.mark.parametrize(
    ("name", "hint"), [("thread", "did you mean 'threading'"), ("foo", "asyncio, threading"), (None, "asyncio")]
)
def test_unknown_backend(name: Any, hint: str) -> None:
    """The message names the known ones."""
    with pytest.raises(OptionError, match=hint):
        create_batcher(name, list)
    with pytest.raises(OptionError, match=hint):
        batched(name)(list)


def test_defaults() -> None:
    """They are what the contract says, and unlimited ones are endless."""
    options = Options()
    assert (options.max_batch_size, options.concurrency, options.max_queue_size) == (256, 1, 1024)
    assert options.chosen_policy == Greedy()
    assert Options(max_queue_time=0.5).chosen_policy == Window(0.5)
    assert Options(policy=Window(2)).chosen_policy == Window(2)
    unlimited = Options(max_batch_size=-1, concurrency=-1, max_queue_size=-1)
    assert min(unlimited.batch_limit, unlimited.slots, unlimited.queue_limit) > 2**60
    assert set(BatcherOptions.__annotations__) == set(Options.__dataclass_fields__)


class NoFunction(ThreadingBatcher[int, int]):
    """A subclass that forgot its method."""


class Both(AsyncioBatcher[int, int]):
    """A subclass with a method."""

    def process_batch(self, batch: list[int]) -> list[int]:
        return batch


def test_one_batch_function(backend: str) -> None:
    """Exactly one: passed or overridden."""
    with pytest.raises(OptionError, match="not both"):
        NoFunction()
    with pytest.raises(OptionError, match="not both"):
        Both(list)
    with pytest.raises(OptionError, match="function of a list"):
        create_batcher(backend, 5)  # type: ignore[arg-type]


def test_the_function_can_be_called_by_itself(backend: str) -> None:
    """`process_batch` is the function that was passed."""
    batcher: Batcher[int, int] = create_batcher(backend, sorted)
    assert batcher.process_batch([2, 1]) == [1, 2]


def test_repr_shows_the_state(backend: str) -> None:
    """Its name, what it does, how much."""
    gate = Gate()
    kind = {"threading": "ThreadingBatcher", "asyncio": "AsyncioBatcher"}[backend]
    batcher = create_batcher(backend, gate.function("sync"), max_batch_size=1, name="mine")
    assert repr(batcher) == f"<{kind} 'mine' new: 0 queued, 0 running, 0 batches in flight>"
    futures = [batcher.submit(n) for n in range(3)]
    while gate.started < 1 or batcher.stats().queued < 2:
        pass
    assert repr(batcher) == f"<{kind} 'mine' running: 2 queued, 1 running, 1 batches in flight>"
    gate.open()
    batcher.close()
    assert repr(batcher) == f"<{kind} 'mine' stopped: 0 queued, 0 running, 0 batches in flight>"
    assert [future.result() for future in futures] == [0, 1, 2]


def test_stats_add_up(backend: str) -> None:
    """Batches, sizes, waits and service times are counted once each."""
    gate = Gate()
    gate.open()
    with create_batcher(backend, gate.function("sync"), max_batch_size=4) as batcher:
        for future in [batcher.submit(n) for n in range(10)]:
            future.result()
        stats = batcher.stats()
    assert (stats.submitted, stats.completed) == (10, 10)
    assert stats.batches == stats.batch_size.count == stats.service_time.count == len(gate.seen)
    assert stats.batch_size.total == stats.queue_wait.count == 10
    assert stats.batch_size.mean == 10 / len(gate.seen)
    assert stats.service_time.total > 0


# The decorator


def test_batched_function(backend: Backend) -> None:
    """Called from threads and from coroutines; it keeps its name and its docstring."""

    @batched(backend, max_batch_size=8)
    def double(numbers: list[int]) -> list[int]:
        """Double them."""
        return [2 * number for number in numbers]

    async def calls() -> list[int]:
        with pytest.raises(BatcherError, match=r"await .*double.aprocess"):
            double(1)
        return await asyncio.gather(*(double.aprocess(n) for n in range(20)))

    assert double(21) == 42
    assert asyncio.run(calls()) == [2 * n for n in range(20)]
    assert (double.__name__, double.__doc__) == ("double", "Double them.")
    assert "double" in repr(double)
    double.batcher.close()


def test_batched_method(backend: Backend) -> None:
    """Each object has a batcher of its own, whatever its first parameter is called."""

    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @batched(backend)
        async def scale(this, numbers: list[int]) -> list[int]:  # noqa: N805 - the name must not matter
            return [this.factor * number for number in numbers]

    two, three = Model(2), Model(3)

    assert (two.scale(10), three.scale(10)) == (20, 30)
    assert two.scale is two.scale
    assert two.scale.batcher is not three.scale.batcher
    assert asyncio.run(two.scale.aprocess(4)) == 8
    for model in (two, three):
        model.scale.batcher.close()


def test_batched_methods_and_super(backend: Backend) -> None:
    """An override and the method that it calls have batchers of their own."""

    class Base:
        @batched(backend)
        def work(self, items: list[str]) -> list[str]:
            return [f"base {item}" for item in items]

    class Derived(Base):
        @batched(backend)
        def work(self, items: list[str]) -> list[str]:
            return [f"derived {super(Derived, self).work(item)}" for item in items]

    derived = Derived()
    assert derived.work("x") == "derived base x"
    derived.work.batcher.close()
    super(Derived, derived).work.batcher.close()


def test_batched_methods_of_one_name(backend: Backend) -> None:
    """What they are called by does not matter: each is itself."""

    def times(factor: int) -> Any:
        @batched(backend)
        def scale(self: object, numbers: list[int]) -> list[int]:
            return [factor * number for number in numbers]

        return scale

    class Model:
        double = times(2)
        triple = times(3)

    model = Model()
    assert (model.double(10), model.triple(10)) == (20, 30)
    model.double.batcher.close()
    model.triple.batcher.close()


class Scaled:
    """An object that can be pickled, with a batched method."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @batched("threading")
    def scale(self, numbers: list[int]) -> list[int]:
        return [self.factor * number for number in numbers]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
def test_copies_of_an_object_with_a_batched_method(copied: Callable[[Scaled], Scaled]) -> None:
    """Each calls its own method, whatever was called before."""
    original = Scaled(2)
    assert original.scale(10) == 20
    other = copied(original)
    other.factor = 3
    assert (other.scale(10), original.scale(10)) == (30, 20)
    assert other.scale is other.scale
    for obj in (original, other):
        obj.scale.batcher.close()


def test_batched_method_without_a_dict(backend: Backend) -> None:
    """There is no place for the batcher: a clear error."""

    class Slotted:
        __slots__ = ()

        @batched(backend)
        def work(self, items: list[int]) -> list[int]:
            return items

    with pytest.raises(BatcherError, match=r"add '__dict__' to Slotted\.__slots__"):
        Slotted().work(1)


def test_both_are_batchers() -> None:
    """One interface."""
    assert issubclass(ThreadingBatcher, Batcher)
    assert issubclass(AsyncioBatcher, Batcher)


@pytest.mark.parametrize(
    "kind", [Options, BatcherStats, HistogramSnapshot, Dispatch], ids=lambda kind: kind.__name__
)
def test_help_explains_each_field(kind: type[Any]) -> None:
    """Literals under fields are invisible in `help`: the docstring of the class has a paragraph for each."""
    names = getattr(kind, "_fields", None) or [field.name for field in dataclasses.fields(kind)]
    shown = inspect.getdoc(kind) or ""
    for name in names:
        assert re.search(rf"^{name}\n    \S", shown, re.MULTILINE), name


def same(items: list[int]) -> list[int]:
    """Return them."""
    return items


class Rank(enum.IntEnum):
    """Priorities with names."""

    LOW, HIGH = 1, 2


async def test_whatever_says_that_it_is_a_number(backend: str) -> None:
    """By `__index__` or `__float__`: integers and floats of numpy, fractions, enumerations."""
    numbers: dict[str, Any] = {
        "max_batch_size": np.int64(2),
        "concurrency": np.uint8(1),
        "max_queue_size": Rank.HIGH,
        "max_queue_time": Fraction(1, 1000),
        "timeout": np.float32(60),
        "batch_timeout": Decimal(60),
        "cost": lambda _: np.float32(0.5),
        "max_batch_cost": np.int8(1),
    }
    batcher: Any = create_batcher(backend, same, **numbers)
    assert await batcher.process(1, priority=Rank.HIGH, timeout=np.float32(60)) == 1
    assert await batcher.process(1, priority=np.int64(3), timeout=Fraction(60)) == 1
    await batcher.stop(timeout=np.float64(60))
    half: Any = Fraction(1, 2)
    one: Any = Decimal(1)
    options = Options(policy=Adaptive(max_hold=half, latency_target=one), timeout=np.float64(2))
    assert repr(options.policy) == "Adaptive(max_hold=0.5, latency_target=1.0)"
    assert type(options.timeout) is float


@pytest.mark.parametrize("cost", ["much", None, True, 1j, math.nan, -1, [1.0, 2.0]], ids=repr)
def test_a_cost_that_is_no_number(backend: str, cost: Any) -> None:
    """The error names the option."""
    with (
        create_batcher(backend, same, cost=lambda _: cost, max_batch_cost=1) as batcher,
        pytest.raises(ItemCostError, match=r"correct cost\(\)"),
    ):
        batcher.submit(1)


def test_import_where_there_are_no_forks() -> None:
    """As on Windows."""
    code = "import os; del os.register_at_fork, os.fork; import batchers"
    ended = run([sys.executable, "-c", code])
    assert (ended.returncode, ended.stderr) == (0, "")
