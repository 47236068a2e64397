"""`stacked`: a model of arrays as a batch function, on both backends."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import resource
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchers import Batcher, BatchResultError, OptionError, batched, create_batcher
from batchers.arrays import Padding, RowError, rows, stacked
from batchers.backends import AsyncioBatcher, ThreadingBatcher
from batchers.core.group_queue import fitting
from tests.support.children import PATIENCE

ROW = rows((3,), "float32")

THOUSANDS = int(os.environ.get("THOUSANDS", "150"))
"""Rows, in thousands, that must leave no memory behind."""


def double(array: Any) -> Any:
    return array * 2


async def double_soon(array: Any) -> Any:
    await asyncio.sleep(0)
    return array * 2


def results(made: Batcher[Any, Any], items: list[Any]) -> list[Any]:
    """Return the result or the error of each item."""
    with made:
        futures: list[Any] = []
        for item in items:
            try:
                futures.append(made.submit(item))
            except RowError as error:
                futures.append(error)
        return [
            each if isinstance(each, RowError) else each.exception(PATIENCE) or each.result() for each in futures
        ]


@pytest.mark.parametrize("model", [double, double_soon])
def test_each_caller_gets_its_row(backend: str, model: Callable[[Any], Any]) -> None:
    """Arrays in, rows out; what is no row is an error of its caller alone."""
    made = create_batcher(backend, stacked(model, ROW))
    items = [[1, 2, 3], [4, 5], [7, 8, float("inf")], "text", [7, 8, 9]]
    first, second, third, fourth, fifth = results(made, items)
    assert first.tolist() == [2, 4, 6]
    assert first.dtype == np.float32
    assert isinstance(second, RowError)
    assert third.tolist()[:2] == [14, 16]
    assert isinstance(fourth, RowError)
    assert fifth.tolist() == [14, 16, 18]
    assert made.stats().failed == 0


def test_a_decorated_function(backend: str) -> None:
    """`batched` takes it."""
    kind: Any = backend
    function = batched(kind)(stacked(double, ROW))
    assert function([1, 2, 3]).tolist() == [2, 4, 6]
    function.batcher.close()


@pytest.mark.parametrize("base", [ThreadingBatcher, AsyncioBatcher])
def test_a_subclass(base: type[Batcher[Any, Any]]) -> None:
    """`process_batch` may be stacked: a function, or a method with its object."""

    class Model(base):  # type: ignore[valid-type, misc]  # either
        factor = 3

        def scale(self, array: Any) -> Any:
            return array * self.factor

        process_batch = stacked(scale, ROW)

    assert results(Model(), [[1, 2, 3]])[0].tolist() == [3, 6, 9]


class Point(NamedTuple):
    """A named tuple of arrays."""

    x: Any
    y: Any


@dataclass
class Pair:
    """A dataclass of arrays."""

    mean: Any
    deviation: Any


def test_structures(backend: str) -> None:
    """Dicts, tuples and dataclasses of arrays are stacked and split by their arrays."""

    def model(array: Any) -> Any:
        assert array["ids"].shape == (array["more"].x.shape[0], 3)
        return Pair(array["ids"].sum(axis=1), {"twice": (array["more"].x * 2, array["more"].y)})

    made = create_batcher(backend, stacked(model))
    items = [{"ids": np.arange(3) + n, "more": Point(np.float64(n), [n, n])} for n in range(4)]
    for number, found in enumerate(results(made, items)):
        assert isinstance(found, Pair)
        assert found.mean == 3 + 3 * number
        assert found.deviation["twice"][0] == 2 * number
        assert found.deviation["twice"][1].tolist() == [number, number]


def test_a_converter_of_a_structure(backend: str) -> None:
    """Each part has its own rows, and the error names the part."""
    convert = {"ids": rows((2,), "int64"), "more": (rows((), "float32"), rows((1,), "bool"))}
    made = create_batcher(backend, stacked(lambda array: array, convert))
    good = {"ids": [1, 2], "more": (0.5, [True])}
    found = results(made, [good, {"ids": [1, 2], "more": (0.5, [3])}, {"ids": [1]}, [1, 2], good])
    assert found[0]["more"][1].tolist() == found[4]["more"][1].tolist() == [True]
    assert str(found[1]).startswith("the part ['more'][1] of the item does not fit: ")
    assert "must have the parts ['ids', 'more']" in str(found[2])
    assert "the item is list: it must have the parts" in str(found[3])


def test_rows_are_copies(backend: str) -> None:
    """A model that writes to its results again changes nobody's row, and a kept row keeps no others."""
    buffer = np.zeros((8, 4))
    references: list[weakref.ref[Any]] = []

    def model(array: Any) -> Any:
        buffer[: len(array)] = array
        result = buffer[: len(array)]
        references.append(weakref.ref(result))
        return result

    made = create_batcher(backend, stacked(model, rows((4,), "float64")))
    with made:
        first = made.call([1, 2, 3, 4])
        second = made.call([5, 6, 7, 8])
        assert first.tolist() == [1, 2, 3, 4]
        assert first.base is None
        gc.collect()
        assert [each() for each in references] == [None, None]
    made = create_batcher(backend, stacked(model, rows((4,), "float64"), copy=False))
    with made:
        first = made.call([1, 2, 3, 4])
        assert first.base is not None
        made.call([5, 6, 7, 8])
        assert first.tolist() == [5, 6, 7, 8]
    assert second.tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (lambda array: array[:-1], "returned 1 rows for 2 items"),
        (lambda array: {"a": array, "b": array[:1]}, r"returned 1 rows\['b'\] for 2 items"),
        (lambda _: 3.0, "returned no rows: float for 2 items"),
        (lambda _: None, "returned no rows: NoneType"),
        (lambda array: array.sum(), "returned no rows: float"),
    ],
)
def test_wrong_results(backend: str, result: Callable[[Any], Any], text: str) -> None:
    """They fail the batch by name, and nobody gets another one's row."""
    made = create_batcher(backend, stacked(result, ROW))

    async def both() -> Any:
        async with made:
            return await made.process_many([[n, n, n] for n in range(2)])  # in one batch

    with pytest.raises(BatchResultError, match=text):
        asyncio.run(both())
    assert (made.stats().completed, made.stats().failed_batches) == (0, 1)


def test_items_that_do_not_fit_together() -> None:
    """Without a converter they fail their batch, and the error says what to give."""
    with pytest.raises(RowError, match=r"the items have the shapes \(1,\), \(2,\): give `rows` to `stacked`"):
        stacked(double)([[1], [1, 2]])
    with pytest.raises(RowError, match=r"an item has the parts \['b'\], and another one \['a'\]"):
        stacked(double)([{"a": 1}, {"b": 1}])
    with pytest.raises(RowError, match=r"differ in more than axis 0"):
        stacked(double, padding=Padding())([[[1]], [[1, 2]]])


# Padding


def test_padding(backend: str) -> None:
    """To the longest, to a multiple, to sizes; the lengths and a mask stand beside it."""
    seen: list[Any] = []

    def model(array: Any, lengths: Any, mask: Any) -> Any:
        seen.append((array.copy(), lengths, mask))
        return lengths

    padding = Padding(to=(4, 8), value=-1, lengths=True, mask=True)
    made = create_batcher(backend, stacked(model, rows((None,), "int64"), padding=padding))
    found = results(made, [[1, 2, 3], [], list(range(9)), [5] * 7])
    assert found[:2] == [3, 0]
    assert found[3] == 7
    assert "has length 9 along axis 0, and the largest size is 8" in str(found[2])
    for array, lengths, mask in seen:
        assert array.shape[1] in {4, 8}
        assert mask.tolist() == [[place < length for place in range(array.shape[1])] for length in lengths]
        assert (array[~mask] == -1).all()
    assert made.stats().padding >= 0


def test_the_length_is_given_to_the_batcher() -> None:
    """So items of like lengths share batches."""
    made = stacked(double, (rows((2,), "int8"), rows((3, None), "int8")), padding=Padding(axis=1))
    item = made.__batchers_options__["convert"](([1, 2], [[1] * 5] * 3))
    assert made.__batchers_options__["length"](item) == 5


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=5),
    st.sampled_from(["longest", 1, 4, (6,), (3, 6)]),
    st.sampled_from([0, 1]),
)
def test_padded_arrays_hold_every_item(shapes: list[tuple[int, int]], to: Any, axis: int) -> None:
    """Whatever the lengths along either axis are."""
    other = shapes[0][1 - axis]
    items = [
        np.random.default_rng(number).integers(1, 9, (shape[axis], other) if axis == 0 else (other, shape[axis]))
        for number, shape in enumerate(shapes)
    ]
    padding = Padding(axis=axis, to=to)
    padded = padding.stack(list(items))
    for row, item in zip(padded, items, strict=True):
        assert (row[: item.shape[0], : item.shape[1]] == item).all()
        assert np.count_nonzero(row) == item.size
    length = padded.shape[1 + axis]
    assert length == padding.length_for(max(item.shape[axis] for item in items))


# Sizes of batches


@pytest.mark.parametrize(
    ("count", "sizes", "batch"),
    [
        (33, (1, 8, 32, 128), 32),
        (1, (1, 8), 1),
        (3, (1, 8), 1),
        (5, (1, 8), 5),
        (8, (1, 8), 8),
        (65, (32, 128), 65),
        (64, (32, 128), 32),
        (3, (8,), 3),
        (500, (8, 32), 32),
    ],
)
def test_fitting(count: int, sizes: tuple[int, ...], batch: int) -> None:
    """A batch is cut down to a size, unless more than half of the next one is there."""
    assert fitting(count, sizes) == batch


def test_batch_sizes(backend: str) -> None:
    """The model sees only these sizes; each caller has its own row."""
    seen: list[int] = []

    def model(array: Any) -> Any:
        seen.append(len(array))
        return array

    made = create_batcher(backend, stacked(model, ROW, batch_sizes=(8, 1, 32)))
    found = results(made, [[n, n, n] for n in range(100)])
    assert [each.tolist() for each in found] == [[n, n, n] for n in range(100)]
    assert set(seen) <= {1, 8, 32}
    assert made.stats().batches == len(seen)


# Processes, and other packages


class Packer:
    """A model with names of its own."""

    batcher_options = "none"

    def pack(self, items: list[int]) -> list[int]:
        """Do something else."""
        raise NotImplementedError

    def __call__(self, items: list[int]) -> list[int]:
        """Return them."""
        return items


def in_a_process(array: Any) -> Any:
    """Be found by name there."""
    return array + 1


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """Give a pool of one process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        executor.submit(os.getpid).result()  # its threads and pipes are older than the tests' leak checks
        yield executor


def test_a_pool_of_processes(backend: str, processes: Executor) -> None:
    """It gets arrays that were stacked before they were sent."""
    function = stacked(in_a_process, ROW, batch_sizes=(4,))
    batch = function.__batchers_pack__([np.zeros(3, "float32"), np.ones(3, "float32")])
    sent = pickle.loads(pickle.dumps(batch))
    assert (sent.size, sent.arguments[0].shape) == (2, (4, 3))
    made = create_batcher(backend, function, executor=processes)
    assert [each.tolist() for each in results(made, [[1, 1, 1], [2, 2, 2]])] == [[2, 2, 2], [3, 3, 3]]


@pytest.mark.parametrize("package", ["torch", "tensorflow", "jax"])
def test_arrays_of_other_packages(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are stacked and split by their own package, which is not imported."""

    class Tensor:
        def __init__(self, array: Any) -> None:
            self.array = np.asarray(array)
            self.shape = self.array.shape

        def __len__(self) -> int:
            return len(self.array)

        def __array__(self, *_: Any, **__: Any) -> Any:
            return self.array

        def __getitem__(self, index: int) -> Tensor:
            return Tensor(self.array[index])

        def unbind(self, _: int) -> list[Tensor]:
            return [self[place] for place in range(len(self))]

        def clone(self) -> Tensor:
            return Tensor(self.array.copy())

    Tensor.__module__ = f"{package}.core"

    def stack(tensors: list[Tensor]) -> Tensor:
        return Tensor(np.stack([tensor.array for tensor in tensors]))

    module = types.SimpleNamespace(
        stack=stack, unstack=lambda tensor, num: [tensor[n] for n in range(num)], numpy=None
    )
    module.numpy = module
    monkeypatch.setitem(sys.modules, package, module)
    seen: list[Any] = []

    def model(tensor: Tensor) -> Tensor:
        seen.append(tensor)
        return Tensor(tensor.array * 2)

    first, second = stacked(model)([Tensor([1, 2]), Tensor([3, 4])])
    assert isinstance(seen[0], Tensor)
    assert isinstance(first, Tensor)
    assert (first.array.tolist(), second.array.tolist()) == ([2, 4], [6, 8])
    with pytest.raises(RowError, match="have the shapes"):
        stacked(model)([Tensor([1, 2]), Tensor([3])])


# Options


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: stacked(3), "model must be a function"),  # type: ignore[arg-type]
        (lambda: stacked(double, 3), "convert must be rows"),  # type: ignore[arg-type]
        (lambda: stacked(double, {}), "convert must be rows"),
        (lambda: stacked(double, {"a": None}), "each part of convert"),
        (lambda: stacked(double, ROW, copy=1), "copy must be True or False"),  # type: ignore[arg-type]
        (lambda: stacked(double, ROW, padding=8), "padding must be Padding"),  # type: ignore[arg-type]
        (lambda: stacked(double, ROW, padding=Padding()), "shape is open"),
        (lambda: stacked(double, ROW, batch_sizes=()), "batch_sizes must be"),
        (lambda: stacked(double, ROW, batch_sizes=(0, 1)), "batch_sizes must be"),
        (lambda: stacked(double, ROW, batch_sizes="18"), "batch_sizes must be"),  # type: ignore[arg-type]
        (lambda: Padding(axis=-1), "axis must be"),
        (lambda: Padding(to=0), "to must be"),
        (lambda: Padding(to=()), "to must be"),
        (lambda: Padding(to="all"), "to must be"),  # type: ignore[arg-type]
        (lambda: create_batcher("asyncio", stacked(double, ROW), convert=list), "convert comes with the batch"),
        (lambda: create_batcher("asyncio", list, batch_sizes=[2], max_batch_size=3), "largest of batch_sizes, 2"),
        (lambda: create_batcher("asyncio", list, batch_sizes=2), "batch_sizes must be"),  # type: ignore[arg-type]
        (lambda: create_batcher("asyncio", list, length=len, cost=len, max_batch_cost=1), "length or cost"),
    ],
)
def test_wrong_options(make: Callable[[], object], text: str) -> None:
    """The error says which, and what it may be."""
    with pytest.raises(OptionError, match=text):
        make()


def test_names_of_users_are_their_own(backend: str, processes: Executor) -> None:
    """A callable object may have methods that sound like the library's."""
    made = create_batcher(backend, Packer(), executor=processes)
    assert results(made, [1, 2]) == [1, 2]


def test_what_it_says_of_itself() -> None:
    """The name of the model, and what comes with it."""
    function = stacked(double, ROW, batch_sizes=(1, 4))
    assert repr(function) == "<stacked double>"
    assert function.__batchers_options__.keys() == {"convert", "batch_sizes"}
    assert stacked(double).__batchers_options__ == {}
    assert create_batcher("asyncio", function).stats().batches == 0


def test_memory_is_flat(backend: str) -> None:
    """The memory of the process after many rows is what it was, within 2 MB: less than 16 bytes for each row."""

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    async def spend(batcher: Batcher[Any, Any], thousands: int) -> int:
        items = np.ones((1000, 10), np.float32)
        for _ in range(thousands):
            await batcher.process_many(items)
        return resident()

    async def scenario() -> None:
        function = stacked(lambda rows: rows * 2, rows((10,), "float32"))
        async with create_batcher(backend, function) as batcher:
            before = await spend(batcher, THOUSANDS // 10)
            after = await spend(batcher, THOUSANDS)
        assert after - before < 2_000_000

    asyncio.run(scenario())
