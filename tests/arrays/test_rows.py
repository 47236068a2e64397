"""`rows`: what is a row becomes an array of its own, and all else is a clear error of its caller."""

from __future__ import annotations

import math
import pickle
from typing import Any

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchers import OptionError, RowError, create_batcher
from batchers.arrays import rows
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, outcomes

THREE = rows((3,), "float32")


@pytest.mark.parametrize(
    "item",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        np.array([1, 2, 3]),
        np.array([1.0, 2.0, 3.0], np.float16),
        np.array([[1, 9], [2, 9], [3, 9]])[:, 0],
        np.ma.MaskedArray([1, 2, 3], mask=False),
        range(1, 4),
        [np.float64(1), np.int8(2), 3],
    ],
    ids=repr,
)
def test_what_is_a_row(item: Any) -> None:
    """It becomes an array of the type, in C order, that shares no memory with the item."""
    found = THREE(item)
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert found.tolist() == [1.0, 2.0, 3.0]
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert not (isinstance(item, np.ndarray) and np.shares_memory(found, item))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ([1, 2], r"shape \(2,\): it must be an array of shape \(3,\) and type float32"),
        (7, r"shape \(\)"),
        ([[1, 2, 3]], r"shape \(1, 3\).*one item is one row, not a batch"),
        ([[1, 2], [3]], "no array of float32: .*inhomogeneous"),
        (["a", "b", "c"], "type <U1, no numbers of Python or numpy"),
        ("abc", "type <U3"),
        (None, "type NoneType, no numbers of Python or numpy"),
        ([1, None, 3], "type NoneType"),
        ({"a": 1}, "type dict"),
        ([1j, 2, 3], "type complex128, which float32 does not hold"),
        ([1e39, 2, 3], r"element \(0,\) of the item is 1e\+39, which float32 does not hold"),
        (np.ma.MaskedArray([1, 2, 3], mask=[False, True, False]), r"element \(1,\) is missing: fill it"),
        (np.array(["2026-11-26"] * 3, "datetime64[D]"), "datetime64"),
    ],
    ids=repr,
)
def test_what_is_no_row(item: Any, words: str) -> None:
    """The error says which element or shape it is, and what it has to be."""
    with pytest.raises(RowError, match=words) as caught:
        THREE(item)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("dtype", "item", "words"),
    [
        ("uint8", [1, 300, 2], r"element \(1,\) of the item is 300, which uint8 does not hold"),
        ("uint8", [1, -1, 2], r"element \(1,\) of the item is -1"),
        ("int64", np.array([1, 2**63, 3], np.uint64), r"is 9223372036854775808, which int64 does not hold"),
        ("float16", np.array([65535, 1, 2], np.uint16), r"element \(0,\) of the item is 65535, which float16"),
        ("complex64", [1e300, 1, 2], r"element \(0,\) of the item is 1e\+300, which complex64 does not hold"),
        ("int32", [1.0, 2.0, 3.0], "float64, which int32 does not hold: convert them first"),
        ("bool", [0, 1, 1], "int64, which bool does not hold"),
    ],
)
def test_values_that_would_be_lost(dtype: str, item: Any, words: str) -> None:
    """A number is never cut, wrapped or rounded to an int."""
    with pytest.raises(RowError, match=words):
        rows((3,), dtype)(item)


def test_values_that_fit() -> None:
    """Whatever the type of the item can hold beyond them."""
    assert rows((2,), "uint8")([0, 255]).tolist() == [0, 255]
    assert rows((2,), "int64")(np.array([0, 5], np.uint64)).tolist() == [0, 5]
    assert rows((), "float32")(3).tolist() == 3.0
    assert rows((None,), "int32")([]).dtype == np.int32
    assert rows((2, None), "bool")([[], []]).shape == (2, 0)
    with np.errstate(all="raise"):
        assert rows((1,), "float32")([1e-60]).tolist() == [0.0]
    assert rows((2,), "bool")([True, False]).tolist() == [True, False]
    assert np.isinf(THREE([math.inf, 1, 2])[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite(bad: float) -> None:
    """Where NaN and infinity are forbidden, the error says where one is."""
    converter = rows((2, 2), "float32", finite=True)
    with pytest.raises(RowError, match=r"element \(1, 0\) of the item is -?(nan|inf), and all must be finite"):
        converter([[1, 2], [bad, 3]])
    assert np.isnan(rows((1,), "float32")([math.nan])[0])


def test_open_lengths() -> None:
    """From none to the most that is allowed, which bounds only the open axes."""
    converter = rows((None, 3), "int32", max_length=2)
    assert converter(np.zeros((0, 3), np.int32)).shape == (0, 3)
    assert converter([[1, 2, 3]] * 2).shape == (2, 3)
    with pytest.raises(RowError, match="axis 0 of the item has length 3, and max_length is 2"):
        converter([[1, 2, 3]] * 3)
    assert rows((None,), "float32")(np.zeros(10_000_000)).shape == (10_000_000,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": 3}, "shape must be a tuple of lengths"),
        ({"shape": "3"}, "shape must be a tuple of lengths"),
        ({"shape": (-1,)}, "each length of shape must be a whole number, 0 or more, or None, not -1"),
        ({"shape": (1.5,)}, "length of shape must be"),
        ({"shape": (True,)}, "length of shape must be"),
        ({"dtype": "text"}, "dtype must be a number type of numpy, e.g. 'float32', not 'text'"),
        ({"dtype": None}, "dtype must be"),
        ({"dtype": object}, "dtype must be"),
        ({"dtype": "U5"}, "dtype must be"),
        ({"dtype": ","}, "dtype must be"),
        ({"dtype": ("f4", -1)}, "dtype must be"),
        ({"shape": b"3"}, "shape must be a tuple of lengths"),
        ({"finite": 1}, "finite must be True or False, not 1"),
        ({"max_length": 0}, "max_length must be a whole number, 1 or more, or None, not 0"),
    ],
    ids=repr,
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    """Each is named."""
    with pytest.raises(OptionError, match=words):
        rows(**{"shape": (3,), "dtype": "float32", **arguments})


def test_it_can_be_shown_and_sent() -> None:
    """By its call, and to another process."""
    converter = rows((None, 3), np.float32, finite=True, max_length=5)
    assert repr(converter) == "rows((None, 3), 'float32', finite=True, max_length=5)"
    assert repr(pickle.loads(pickle.dumps(converter))) == repr(converter)
    assert repr(rows((3,), "int8")) == "rows((3,), 'int8')"


NUMBERS = arrays_of.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc")


@settings(deadline=None)
@given(
    item=arrays_of.arrays(arrays_of.scalar_dtypes(), arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    dtype=NUMBERS,
    finite=st.booleans(),
)
def test_any_array(item: Any, dtype: Any, finite: bool) -> None:
    """It is the same numbers, or a RowError."""
    try:
        found = rows(item.shape, dtype, finite=finite)(item)
    except RowError:
        return
    assert (found.shape, found.dtype) == (item.shape, dtype)
    if not item.size:
        return  # an empty item fits every type
    assert np.array_equal(found, item.astype(dtype), equal_nan=dtype.kind in "fc")
    if dtype.kind in "fc" and item.dtype.kind in "biufc":
        assert np.array_equal(np.isfinite(found), np.isfinite(item))
    if item.dtype.kind in "iu" and dtype.kind in "iu":
        assert found.tolist() == item.tolist()
    if finite and dtype.kind in "fc":
        assert np.isfinite(found).all()


nested: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(item=nested)
def test_any_nested_item(item: Any) -> None:
    """As they come from JSON: a row, or a RowError."""
    try:
        found = THREE(item)
    except RowError:
        return
    assert found.shape == (3,)


async def test_neighbours_of_bad_items(make: Make, gate: Gate, flavour: Flavour) -> None:
    """They get their answers, and no bad item reaches a batch."""
    gate.open()
    batcher = make(gate.function(flavour), convert=THREE)
    items: list[Any] = [[1, 2, 3], [1, 2], np.ones(3), "abc", [1, None, 3], [4, 5, 6]]

    found = await outcomes(*(batcher.process(item) for item in items))

    assert [type(each) for each in found] == [np.ndarray, RowError, np.ndarray, RowError, RowError, np.ndarray]
    assert [each.tolist() for each in found if isinstance(each, np.ndarray)] == [[1, 2, 3], [1, 1, 1], [4, 5, 6]]
    assert batcher.stats().submitted == 3
    assert len(gate.items) == 3


def test_the_caller_may_change_its_array(backend: str) -> None:
    """The row is another one."""

    def total(items: list[Any]) -> list[float]:
        return [float(item.sum()) for item in items]

    with create_batcher(backend, total, convert=THREE) as batcher:
        mine = np.ones(3)
        future = batcher.submit(mine)
        mine[:] = 1000
        assert future.result() == 3
