"""`@batched`: under and over other decorators, in processes, and how its functions look."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import pickle
import sys
import typing
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batchers import batched
from batchers.decorator import Backend, Batched
from tests.support.children import ROOT, run


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper, as many decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@batched
def words(numbers: list[int]) -> list[str]:
    """Return numbers as text."""
    return [str(number) for number in numbers]


class Model:
    """Batched methods of all kinds."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @batched("threading")
    def scale(self, numbers: list[int]) -> list[int]:
        return [self.factor * number for number in numbers]

    @logged
    @batched("threading")
    def over(self, numbers: list[int]) -> list[int]:
        return [self.factor * number for number in numbers]

    @batched("threading")
    @logged
    def under(self, numbers: list[int]) -> list[int]:
        return [self.factor * number for number in numbers]

    @staticmethod
    @batched("threading")
    def static_over(numbers: list[int]) -> list[int]:
        return [-number for number in numbers]

    @batched("threading")
    @staticmethod
    def static_under(numbers: list[int]) -> list[int]:
        return [-number for number in numbers]

    @classmethod
    @batched("threading")
    def class_over(cls, numbers: list[int]) -> list[str]:
        return [f"{cls.__name__} {number}" for number in numbers]

    @batched("threading")
    @classmethod
    def class_under(cls, numbers: list[int]) -> list[str]:
        return [f"{cls.__name__} {number}" for number in numbers]


class Larger(Model):
    """A subclass that overrides one, and calls the one above."""

    @batched("threading")
    def scale(self, numbers: list[int]) -> list[int]:
        above: Any = super().scale
        return [above(number) + 1 for number in numbers]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Stop all batchers of this file."""
    yield
    for each in gc.get_objects():
        if isinstance(each, Batched) and each.__module__ == __name__:
            each.batcher.close()


def test_every_kind_of_method() -> None:
    """Each is called with one item, and has its own answer."""
    two: Any = Model(2)
    larger: Any = Larger(3)
    cls: Any = Model
    assert (two.scale(5), cls.scale(two, 5), larger.scale(5)) == (10, 10, 16)
    assert (two.over(5), cls.over(two, 5)) == (10, 10)
    assert (two.under(5), cls.under(two, 5)) == (10, 10)
    assert (two.static_over(5), cls.static_over(5), two.static_under(5), cls.static_under(5)) == (-5,) * 4
    assert (two.class_over(5), cls.class_over(5), Larger.class_over(5)) == ("Model 5", "Model 5", "Larger 5")
    assert (two.class_under(5), cls.class_under(5), Larger.class_under(5)) == ("Model 5", "Model 5", "Larger 5")


def test_a_bare_decorator() -> None:
    """It means the default backend; the function has what a batcher has."""

    @batched
    def words(numbers: list[int]) -> list[str]:
        """Return numbers as text."""
        return [str(number) for number in numbers]

    assert type(words.batcher).__name__ == "AsyncioBatcher"
    assert words(3) == "3"
    assert words(item=4) == "4"
    assert words.submit(5).result() == "5"
    assert words.stats().completed == 3
    assert words.__doc__ == "Return numbers as text."


async def test_many() -> None:
    """As of the batcher."""

    @batched
    async def double(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    assert await double.process_many(range(3)) == [0, 2, 4]
    assert await double.aprocess(4) == 8


def test_how_a_call_looks() -> None:
    """Its signature and annotations are those of a call with one item."""
    assert str(inspect.signature(words)) == (
        "(item: 'int', *, timeout: float | None = None, priority: int = 0) -> 'str'"
    )
    assert typing.get_type_hints(words) == {
        "item": int,
        "timeout": float | None,
        "priority": int,
        "return": str,
    }
    assert str(inspect.signature(Model.scale)).startswith("(self, item: 'int', /, *, timeout")
    two = Model(2)
    assert str(inspect.signature(two.scale)).startswith("(item: 'int', *, timeout")


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((1, 2), {}, "takes one item, not 2: an item is one object, so pass several values as a tuple"),
        ((), {}, "takes one item, not 0"),
        ((), {"a": 1}, "has no argument 'a': pass the item by its place, or as item=..."),
        ((1,), {"a": 1}, "has no argument 'a': it takes one item, timeout and priority"),
    ],
)
def test_wrong_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], text: str) -> None:
    """They say that an item is one object."""
    call: Any = words
    with pytest.raises(TypeError, match=text.replace("(", "\\(")):
        call(*args, **kwargs)


def test_a_method_without_its_object() -> None:
    """It says what is missing."""
    call: Any = Model.scale
    with pytest.raises(TypeError, match="is a method: call it on an object"):
        call(1)


IN_PROCESSES = """
import functools, multiprocessing
from concurrent.futures import ProcessPoolExecutor
from batchers import batched

def fork():
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))

def spawn():
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@batched("asyncio", executor=fork)
def forked(numbers):
    return [number + 1 for number in numbers]

@logged
@batched("threading", executor=spawn)
def spawned(numbers):
    return [number + 1 for number in numbers]

class Sent:
    def __init__(self, factor):
        self.factor = factor

    @batched("threading", executor=fork)
    def forked(self, numbers):
        return [self.factor * number for number in numbers]

    @batched("asyncio", executor=spawn)
    def spawned(self, numbers):
        return [self.factor * number for number in numbers]

if __name__ == "__main__":
    sent = Sent(5)
    print(forked(1), spawned(1), sent.forked(2), sent.spawned(2))
    for each in (forked, spawned.__wrapped__, sent.forked, sent.spawned):
        each.batcher.close()
"""


def test_in_other_processes(tmp_path: Path) -> None:
    """Functions and methods are found by their names, also under other decorators."""
    (tmp_path / "program.py").write_text(IN_PROCESSES)
    ended = run([sys.executable, str(tmp_path / "program.py")], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (ended.returncode, ended.stdout) == (0, "2 2 10 10\n"), ended.stderr


def test_a_function_that_no_process_finds(backend: Backend) -> None:
    """One that is inside of another function says so."""

    @batched(backend, executor=lambda: ProcessPoolExecutor(1))
    def inner(numbers: list[int]) -> list[int]:
        return numbers

    with pytest.raises(pickle.PicklingError, match="define it at the top level of its module"):
        inner(1)


def annotated(items: object, results: object) -> Callable[..., Any]:
    """Return a function with these annotations."""

    def function(items: Any) -> Any:
        return items

    function.__annotations__ = {"items": items, "return": results}
    return function


@pytest.mark.parametrize(
    ("items", "results", "expected"),
    [
        (list[int], list[str], (int, str)),
        ("list[dict[str, int]]", "typing.Sequence[tuple[int, ...]]", ("dict[str, int]", "tuple[int, ...]")),
        ("List[int]", "Awaitable[Sequence[float]]", ("int", "float")),
        ("list[int]", "Coroutine[Any, Any, list[float]]", ("int", "float")),
        (list[int], Awaitable[Sequence[float]], (int, float)),
        ("np.ndarray", "list", (Any, Any)),
        (object, "no [ type", (Any, Any)),
    ],
)
def test_annotations(items: object, results: object, expected: tuple[object, object]) -> None:
    """The element type of a list, and Any for what is none."""
    call = batched(annotated(items, results))
    signature = inspect.signature(call)
    assert (signature.parameters["item"].annotation, signature.return_annotation) == expected
