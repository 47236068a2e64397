"""Promise 13: the names of a subclass are its own."""

from __future__ import annotations

import asyncio
import copy
import pickle
import types
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pytest

from batchers import (
    AsyncioBatcher,
    Batcher,
    BatcherError,
    BatcherStoppedError,
    DeadlineExceededError,
    OptionError,
    ThreadingBatcher,
)
from batchers.drivers import shutdown
from batchers.drivers.asyncio_driver import AsyncioDriver
from batchers.drivers.threading_driver import ThreadingDriver
from tests.conftest import BACKENDS
from tests.support.gate import Gate, outcomes, until
from tests.support.inside import driver_of

T = TypeVar("T")
S = TypeVar("S")

CLASSES: dict[str, type[Batcher[Any, Any]]] = {"threading": ThreadingBatcher, "asyncio": AsyncioBatcher}

PRIVATE_ONCE = frozenset(
    """
_abandon _admit _advance _after_fork _armed _ask_next _at_exit _await _begin _begin_task _checked_cost _clock
_close _collapse _complete _condition _core _cost _crew _decide _end _end_of _ended _evaluate _finalizers
_finally _find_home _finish _function _group_by _hand_over _home _is_async _leave _leave_dead_home _left
_leftovers _lock _look_after_strays _look_again _loop_of_its_own _loop_thread _mark _move _next_batch _on_home
_options _orphaned _own_workers _rearm _rests _retire _ring _run _seconds_to _seconds_to_end_threads _set_timer
_settle_in _settle_on _start _start_rest _start_task _stopped _sweep _sweep_later _sweeping _take _task_name
_tasks _threads _ticket _tidy _timeout _timer _timer_at _wake _withdraw _withdraw_anywhere _work _workers
""".split()  # noqa: SIM905 - a list would take eighty lines
)
"""The private names of version 0.2, where a batcher was its own driver: helpers with these names hung callers."""

PUBLIC = {name for name in vars(Batcher) if not name.startswith("_")}


def names() -> set[str]:
    """Return all names that a subclass may want for itself: those of old, and those of the drivers now."""
    drivers = (ThreadingDriver, AsyncioDriver)
    now = {name for driver in drivers for name in dir(driver) if not name.startswith("__")}
    return (now | PRIVATE_ONCE) - PUBLIC


@pytest.fixture(params=BACKENDS)
def kind(request: pytest.FixtureRequest) -> type[Batcher[Any, Any]]:
    """Give the class of a backend."""
    return CLASSES[request.param]


def meddle(*_: object, **__: object) -> Any:
    """Serve as a method that the library must not call."""
    msg = "the library called a method of a subclass"
    raise AssertionError(msg)


class Plain:
    """A batch function that a gate holds, for subclasses."""

    gate: Gate

    def process_batch(self, batch: list[Any]) -> Any:
        return self.gate.function("sync")(batch)


async def check(batcher: Batcher[Any, Any], gate: Gate) -> None:
    """Let it answer, time out, cancel, fail, and stop: with threads, coroutines, and all that users see."""
    try:
        await use(batcher, gate)
    finally:
        gate.open()
        await driver_stopped(batcher)


async def driver_stopped(batcher: Batcher[Any, Any]) -> None:
    """Stop a batcher whose public methods may be the test's."""
    await shutdown.stop(driver_of(batcher), force=False, timeout=None)


async def use(batcher: Batcher[Any, Any], gate: Gate) -> None:
    """Do all of it, while the gate holds the first batch."""
    first = asyncio.create_task(batcher.process(0))
    await until(lambda: gate.started == 1)
    late, left = asyncio.create_task(batcher.process(1, timeout=0.001)), asyncio.create_task(batcher.process(2))
    bad = batcher.submit("bad")
    await until(lambda: batcher.stats().expired == 1)
    left.cancel()
    results = await outcomes(late, left)
    assert [type(result) for result in results] == [DeadlineExceededError, asyncio.CancelledError]
    gate.answer = lambda item: ValueError(item) if item == "bad" else item
    gate.open()
    assert await first == 0
    with pytest.raises(ValueError, match="bad"):
        await asyncio.wrap_future(bad)
    assert await asyncio.gather(*(batcher.process(n) for n in range(900))) == list(range(900))
    assert await batcher.process_many(range(90)) == list(range(90))
    assert await asyncio.to_thread(lambda: [batcher.call(n) for n in range(10)]) == list(range(10))
    assert batcher.stats().completed == 1001
    assert batcher.decisions()
    assert batcher.dump() == driver_of(batcher).describe()
    assert repr(batcher)
    assert await batcher.is_running()
    await batcher.stop()
    with pytest.raises(BatcherStoppedError):
        await batcher.process(1)
    await asyncio.to_thread(batcher.close)


@pytest.mark.parametrize("name", ["Mine", "Batcher", "ThreadingBatcher", "AsyncioBatcher", "Driver"])
async def test_methods(kind: type[Batcher[Any, Any]], gate: Gate, name: str) -> None:
    """A subclass has a method of every name that was ever private here, whatever the subclass is called."""
    methods = dict.fromkeys(names(), meddle)
    batcher = types.new_class(name, (Plain, kind), exec_body=lambda body: body.update(methods))()
    batcher.gate = gate
    await check(batcher, gate)


async def test_attributes(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """They may be set, before and after the batcher is set up."""

    class Mine(Plain, kind):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            for name in names():
                setattr(self, name, "mine")
            super().__init__()
            for name in names():
                setattr(self, name, "mine, too")

    batcher = Mine()
    batcher.gate = gate
    await check(batcher, gate)
    assert {getattr(batcher, name) for name in names()} == {"mine, too"}


async def test_a_class_called_batcher(gate: Gate, kind: type[Batcher[Any, Any]]) -> None:
    """Its own hidden names meet none of ours."""

    class Batcher(Plain, kind):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.__driver = self.__lock = self.__core = self.__batchers = "mine"

        def mine(self) -> set[str]:
            return {self.__driver, self.__lock, self.__core, self.__batchers}

    batcher = Batcher()
    batcher.gate = gate
    await check(batcher, gate)
    assert batcher.mine() == {"mine"}


class Counting:
    """A mixin that needs its `__init__`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.count = 1


class Slotted:
    """A base with slots, which are set in its `__init__`."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        super().__init__()
        self.slot = 2


class Module:
    """A base like torch's `nn.Module`: it keeps attributes of its own way, and calls no other `__init__`."""

    def __init__(self) -> None:
        self.__dict__["parts"] = {}

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__["parts"][name] = value

    def __getattr__(self, name: str) -> Any:
        if "parts" in self.__dict__ and name in self.__dict__["parts"]:
            return self.__dict__["parts"][name]
        raise AttributeError(name)


class Predicts(ABC, Generic[T, S]):
    """An abstract, generic base."""

    @abstractmethod
    def predict(self, item: T) -> S: ...


@runtime_checkable
class HasGate(Protocol):
    """A protocol that a batcher may have among its bases."""

    gate: Gate


async def test_mixins(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """Before and after the batcher; each has its `__init__` called, once."""

    class Before(Counting, Plain, kind):  # type: ignore[misc, valid-type]
        pass

    class After(Plain, kind, Counting, Slotted):  # type: ignore[misc, valid-type]
        pass

    for each in (Before, After):
        batcher = each()
        batcher.gate = Gate()
        await check(batcher, batcher.gate)
        assert batcher.count == 1
    assert batcher.slot == 2
    with pytest.raises(OptionError, match="policy"):
        Before(policy="greedy")
    with pytest.raises(TypeError, match="max_batch_sise"):
        Before(max_batch_sise=1)


async def test_a_base_like_a_torch_module(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """After the batcher; before it, the batcher is never set up, and says so at the first call."""

    class Model(kind, Module):  # type: ignore[misc, valid-type]
        def process_batch(self, batch: list[Any]) -> Any:
            return self.gate.function("sync")(batch)

    model = Model()
    model.gate = gate
    model.weights = [1, 2]
    await check(model, gate)
    assert set(model.parts) == {"gate", "weights"}

    class Wrong(Module, kind):  # type: ignore[misc, valid-type]
        def process_batch(self, batch: list[Any]) -> Any:
            return batch

    await refuses_all(Wrong())


async def refuses_all(batcher: Any) -> None:
    """Every use of a batcher that was not set up is the same clear error; its `repr` is none."""
    assert repr(batcher) == f"<{type(batcher).__name__} without a driver>"
    for use in (
        lambda: batcher.submit(1),
        lambda: batcher.call(1),
        batcher.stats,
        batcher.decisions,
        batcher.dump,
        batcher.close,
        lambda: batcher.healthy,
        lambda: batcher.name,
    ):
        with pytest.raises(BatcherError, match=r"super\(\).__init__\(\)"):
            await asyncio.to_thread(use)
    for call in (batcher.process(1), batcher.process_many([1]), batcher.stop(), batcher.is_running()):
        with pytest.raises(BatcherError, match=r"super\(\).__init__\(\)"):
            await call


async def test_a_forgotten_super_init(kind: type[Batcher[Any, Any]]) -> None:
    """The first call names the cure."""

    class Forgetful(kind):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self.size = 3

        def process_batch(self, batch: list[Any]) -> Any:
            return batch

    await refuses_all(Forgetful())


async def test_abstract_generic_and_protocol_bases(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """Together with the batcher, in both orders."""

    class One(Predicts[int, int], Plain, kind):  # type: ignore[misc, valid-type]
        def predict(self, item: int) -> int:
            return item

    class Two(Plain, kind, Predicts[int, int], HasGate):  # type: ignore[misc, valid-type]
        def predict(self, item: int) -> int:
            return item

    for each in (One, Two):
        batcher = each()
        batcher.gate = Gate()
        await check(batcher, batcher.gate)
    assert isinstance(batcher, HasGate)

    class Abstract(Plain, kind, Predicts[int, int]):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(TypeError, match="predict"):
        Abstract()


async def test_dataclasses(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """Plain, frozen, and with slots; `__post_init__` sets the batcher up."""
    for options in ({}, {"frozen": True}, {"slots": True}, {"eq": False}):

        @dataclass(**options)
        class Model(Plain, kind):  # type: ignore[misc, valid-type]
            gate: Gate = field(default_factory=Gate)
            name: str = "mine"
            healthy: bool = False
            _lock: int = 1
            _core: int = 2

            def __post_init__(self) -> None:
                kind.__init__(self)

        model: Any = Model()
        await check(model, model.gate)
        assert (model.name, model.healthy, model._lock, model._core) == ("mine", False, 1, 2)


async def test_slots(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """Of a subclass."""

    class Model(Plain, kind):  # type: ignore[misc, valid-type]
        __slots__ = ("_core", "_lock", "_run", "gate")

    batcher = Model()
    batcher.gate = gate
    batcher._core = batcher._lock = batcher._run = "mine"
    await check(batcher, gate)


async def test_names_that_may_be_set(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """`name` and `healthy`: on an object, as class attributes, and as properties of a subclass."""
    batcher = kind(gate.function("sync"))
    assert (batcher.name, batcher.healthy) == (kind.__name__, True)
    batcher.name, batcher.healthy = "mine", False
    assert (batcher.name, batcher.healthy) == ("mine", False)
    await check(batcher, gate)

    class Model(Plain, kind):  # type: ignore[misc, valid-type]
        name = 5

        @property
        def healthy(self) -> str:
            return "always"

    model = Model()
    model.gate = Gate()
    await check(model, model.gate)
    assert (model.name, model.healthy) == (5, "always")


async def test_public_methods_of_a_subclass(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """The library calls none but `process_batch`, and those that `with` means."""
    methods = dict.fromkeys(PUBLIC - {"process_batch", "process", "stop"}, meddle)
    batcher: Any = types.new_class("Mine", (Plain, kind), exec_body=lambda body: body.update(methods))()
    batcher.gate = gate
    gate.open()
    assert await asyncio.gather(*(batcher.process(n) for n in range(100))) == list(range(100))
    await batcher.stop()


def test_nothing_of_a_driver_is_reachable_by_an_ordinary_name(kind: type[Batcher[Any, Any]]) -> None:
    """A batcher has one attribute, and a name that only our own class can spell."""
    batcher = kind(list)
    assert set(vars(batcher)) == {"_Batcher__batchers_driver"}
    ordinary = {name for name in dir(batcher) if not name.startswith(("__", "_Batcher__batchers_"))}
    assert ordinary - {"_abc_impl", "_is_protocol"} == PUBLIC
    batcher.close()


def test_copies_are_refused(kind: type[Batcher[Any, Any]]) -> None:
    """In one line that says what to do."""
    with kind(list) as batcher:
        for copier in (copy.copy, copy.deepcopy):
            with pytest.raises(BatcherError, match=f"make a new {kind.__name__}"):
                copier(batcher)


class PickledThreads(ThreadingBatcher[int, int]):
    """A batcher with a state of its own."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def process_batch(self, batch: list[int]) -> list[int]:
        return [self.factor * item for item in batch]


class PickledLoop(AsyncioBatcher[int, int]):
    """The same for the other backend."""

    __init__ = PickledThreads.__init__
    factor: int
    process_batch = PickledThreads.process_batch


async def test_pickles(backend: str) -> None:
    """They have the subclass's own state, without a driver: `process_batch` works, calls say why they do not."""
    kind: Any = PickledThreads if backend == "threading" else PickledLoop
    if backend == "threading":
        batcher = kind(3)
    else:
        batcher = kind.__new__(kind)
        AsyncioBatcher.__init__(batcher)
        batcher.factor = 3
    loaded = pickle.loads(pickle.dumps(batcher))
    assert vars(loaded) == {"factor": 3}
    assert loaded.process_batch([1, 2]) == [3, 6]
    await refuses_all(loaded)
    await batcher.stop()


def test_a_batcher_of_no_backend() -> None:
    """It has no way to wait."""

    class Neither(Batcher[int, int]):
        def process_batch(self, batch: list[int]) -> list[int]:
            return batch

    with pytest.raises(TypeError, match="ThreadingBatcher or AsyncioBatcher"):
        Neither()


async def test_a_driver_forgets_its_batcher(kind: type[Batcher[Any, Any]], gate: Gate) -> None:
    """It refers to it strongly only while there is work."""
    batcher = kind(gate.function("sync"))
    driver = driver_of(batcher)

    def kept() -> Any:
        return driver._kept

    assert kept() is None
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    assert kept() is batcher
    gate.open()
    await task
    await until(lambda: kept() is None)
    await batcher.stop()
