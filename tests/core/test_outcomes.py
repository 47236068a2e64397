"""What a result or an exception means, without any batcher."""

from __future__ import annotations

import traceback
import weakref
from array import array
from collections import Counter, UserList, deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from email.message import Message
from typing import Any, NamedTuple, Self
from urllib.error import HTTPError

import numpy as np
import pytest

from batchers.core.exceptions import own_copy
from batchers.core.outcomes import Err, Failed, judge
from batchers.errors import BatchFunctionError, BatchResultError, QueueFullError


class Picky(Exception):
    """Cannot be copied by its constructor, and keeps what it was given."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Demanding(Exception):
    """Cannot even be made without what it passes on, and its constructor takes more."""

    def __new__(cls, text: str, **_: int) -> Self:
        return super().__new__(cls, text)

    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


class Changeling(Exception):
    """A copy of it is something else."""

    def __copy__(self) -> Exception:
        return KeyError("other")


class Slotted(Exception):
    """It keeps things in slots."""

    __slots__ = ("__hidden", "code", "unset")

    def __init__(self, code: int) -> None:
        super().__init__("text")
        self.code = code
        self.__hidden = 2 * code

    def hidden(self) -> int:
        return self.__hidden


class Formatting(Exception):
    """Its constructor makes a text of a text."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name} failed")


class Single(Exception):
    """A copy of it is itself."""

    def __copy__(self) -> Exception:
        return self


def test_a_list_is_taken_as_it_is() -> None:
    """Values stay what they are, and exceptions become errors."""
    error = KeyError("x")
    outcomes = judge([1, None, error], 3)

    assert isinstance(outcomes, list)
    assert outcomes[:2] == [1, None]
    assert isinstance(outcomes[2], Err)
    assert outcomes[2].error is not error
    assert outcomes[2].error.__cause__ is error
    assert repr(outcomes[2]) == "Err(KeyError('x'))"


ROWS = "return a list (or an array) with one result for each item, in the order of the items"
COLUMNS = "a tuple is taken for columns; return list(zip(means, stds)), or list(rows)"


class Pair(NamedTuple):
    """What a function returns that has two results for each item."""

    means: list[int]
    stds: list[int]


class Frame:
    """A data frame: it iterates over its columns."""

    columns = ("a", "b")

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Series:
    """A column: it has keys, as a mapping has, and a shape, as an array has."""

    shape = (2,)

    def keys(self) -> list[int]:
        return [0, 1]

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])


class Sequence:
    """It has a length, and elements."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> int:
        return [1, 2][place]


WRONG: list[tuple[Any, str]] = [
    (None, f"returned None; {ROWS}"),
    ("ab", f"returned a str, which is one value; {ROWS}"),
    (b"ab", "a bytes, which is one value"),
    (bytearray(b"ab"), "a bytearray, which is one value"),
    (memoryview(b"ab"), "a memoryview, which is one value"),
    ({"a": 1, "b": 2}, f"a dict, whose order is not the order of the items; {ROWS}"),
    ({"a": 1, "b": 2}.keys(), "a dict_keys, whose order"),
    ({"a": 1, "b": 2}.values(), "a dict_values, whose order"),
    ({"a": 1, "b": 2}.items(), "a dict_items, whose order"),
    ({1, 2}, "a set, whose order"),
    (frozenset((1, 2)), "a frozenset, whose order"),
    (Counter("ab"), "a Counter, whose order"),
    ((1, 2), f"returned a tuple, and {COLUMNS}"),
    (Pair([1, 2], [3, 4]), f"returned a Pair, and {COLUMNS}"),
    (np.array([1, 2]).shape, "a tuple, and"),
    (
        Frame(),
        "a Frame, which iterates over its columns; return its rows, e.g. list(frame.itertuples(index=False))",
    ),
    (iter([1, 2]), f"a list_iterator; {ROWS}"),
    (map(str, "ab"), f"a map; {ROWS}"),
    (3, f"returned a int; {ROWS}"),
    (np.float64(3), f"a float64 without dimensions, which is one value; {ROWS}"),
    (np.array(3.0), "a ndarray without dimensions"),
]


@pytest.mark.parametrize(("result", "text"), WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_wrong_results(result: object, text: str, count: int) -> None:
    """At every size of the batch; the message says what came, and what should have come."""
    verdict = judge(result, count)

    assert isinstance(verdict, Failed)
    assert isinstance(verdict.cause, BatchResultError)
    assert text in str(verdict.cause)
    assert verdict.divisible


@pytest.mark.parametrize(("result", "text"), [([1], "1 results for 2"), ([1, 2, 3], "3 results for 2")])
def test_a_wrong_number_of_results(result: object, text: str) -> None:
    """The message has both numbers."""
    verdict = judge(result, 2)
    assert isinstance(verdict, Failed)
    assert str(verdict.cause) == f"process_batch returned {text} items; {ROWS}"


@pytest.mark.parametrize(
    "result",
    [
        [1, 2],
        deque([1, 2]),
        range(1, 3),
        array("i", [1, 2]),
        UserList([1, 2]),
        np.array([1, 2]),
        np.array([[1], [2]]),
        Series(),
        Sequence(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_right_results(result: Any) -> None:
    """Lists, other sequences, arrays and series are taken element by element."""
    assert judge(result, 2) == [1, 2]


def test_a_frame_is_no_sequence() -> None:
    """A table iterates over its columns, which are not the items: what has keys is refused."""

    class Table(list[int]):
        def keys(self) -> list[str]:
            return ["a", "b"]

    assert isinstance(judge(Table([1, 2]), 2), Failed)


def test_elements_that_are_no_results() -> None:
    """An exception class, or a coroutine, which is closed, fails its item only. Other classes are results."""

    async def forgotten() -> None:
        """Is not awaited."""

    outcomes = judge([1, ValueError, forgotten(), int, None], 5)

    assert isinstance(outcomes, list)
    assert [outcomes[0], *outcomes[3:]] == [1, int, None]
    first, second = outcomes[1], outcomes[2]
    assert isinstance(first, Err)
    assert isinstance(second, Err)
    assert type(first.error) is type(second.error) is BatchResultError
    assert str(first.error) == (
        "the result of this item is the class ValueError: return an exception, ValueError(...)"
    )
    assert str(second.error) == (
        "the result of this item is a coroutine, "
        "test_elements_that_are_no_results.<locals>.forgotten(...): await it in process_batch"
    )


def test_a_length_that_lies() -> None:
    """What is counted is what came."""

    class Liar(list[int]):
        def __len__(self) -> int:
            return 2

    assert isinstance(judge(Liar([1, 2, 3]), 2), Failed)
    assert judge(Liar([1, 2, 3]), 3) == [1, 2, 3]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("text", 5),
        Picky(3, "text"),
        Demanding("text", code=3),
        Formatting("bert"),
        OSError(2, "no such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ExceptionGroup("two", [ValueError(1), KeyError(2)]),
        QueueFullError("full", retry_after=7.5),
        KeyError("key"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_copies_are_equal_in_all_but_identity(error: Exception) -> None:
    """Type, arguments, attributes and text."""
    error.add_note("a note")
    copied = own_copy(error)

    assert copied is not error
    assert type(copied) is type(error)
    assert (copied.args, str(copied), copied.__dict__) == (error.args, str(error), error.__dict__)
    assert copied.__cause__ is error
    assert copied.__traceback__ is None


def test_notes_and_members_are_copied_too() -> None:
    """What one caller adds to its own, the others do not see."""
    error = ExceptionGroup("several", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])])
    error.add_note("from the model")
    first, second = own_copy(error), own_copy(error)
    first.add_note("a secret")

    assert isinstance(first, ExceptionGroup)
    assert isinstance(second, ExceptionGroup)
    assert second.__notes__ == error.__notes__ == ["from the model"]
    assert repr(first.exceptions) == repr(error.exceptions)
    for mine, theirs, original in zip(first.exceptions, second.exceptions, error.exceptions, strict=True):
        assert len({id(mine), id(theirs), id(original)}) == 3


class Shy(ExceptionGroup[ValueError]):
    """A group that does not say how to derive another."""


def test_groups_of_a_kind_of_their_own() -> None:
    """They keep their type, and share no members either."""
    error = Shy("several", [ValueError("one")])
    copied = own_copy(error)
    assert isinstance(copied, Shy)
    assert copied.args == error.args
    assert copied.exceptions[0] is not error.exceptions[0]


def test_slots_are_copied() -> None:
    """Those that are set."""
    copied = own_copy(Slotted(3))
    assert isinstance(copied, Slotted)
    assert (copied.code, copied.hidden(), hasattr(copied, "unset")) == (3, 6, False)


class OneSlot(Exception):
    """Its slots are a text."""

    __slots__ = "code"  # noqa: PLC0205 - it is what people write
    code: int


class _XPrivate(Exception):
    """A class whose name begins with an underscore, which a hidden name does not repeat."""

    __slots__ = ("__hidden", "__shown__", "__weakref__", "ends__")

    def __init__(self, hidden: int) -> None:
        super().__init__("text")
        self.__hidden = hidden
        self.__shown__ = 2 * hidden
        self.ends__ = 4 * hidden
        self.other = 5 * hidden

    def hidden(self) -> int:
        return self.__hidden


def test_slots_of_odd_names_are_copied() -> None:
    """A single one, hidden ones of a private class, and names that only look hidden."""
    one = OneSlot("text")
    one.code = 5
    copied = own_copy(one)
    assert isinstance(copied, OneSlot)
    assert copied.code == 5
    original = _XPrivate(3)
    private = own_copy(original)
    assert isinstance(private, _XPrivate)
    assert (private.hidden(), private.__shown__, private.ends__, private.other) == (3, 6, 12, 15)
    private.other = 0
    assert original.other == 15


class Deriving(ExceptionGroup[ValueError]):
    """A group that says how to derive another, with a constructor of its own."""

    __slots__ = ()

    def derive(self, members: Any) -> Any:
        return Deriving(self.message + ", derived", members)


def test_groups_with_a_constructor() -> None:
    """It does not run again."""
    copied = own_copy(Deriving("several", [ValueError("one")]))
    assert isinstance(copied, Deriving)
    assert copied.message == "several"


@dataclass(frozen=True)
class Frozen(Exception):
    """It refuses to be changed."""

    code: int
    text: str


class Counting(Exception):
    """It counts how often it is made."""

    made = 0

    def __init__(self, item: int) -> None:
        Counting.made += 1
        super().__init__(f"bad item {item}")


def test_frozen_exceptions_keep_their_type() -> None:
    """And can be raised."""
    error = Frozen(3, "text")
    copied = own_copy(error)
    assert isinstance(copied, Frozen)
    assert (copied.code, copied.text, copied.__cause__) == (3, "text", error)
    with pytest.raises(Frozen):
        raise copied


def test_no_constructor_of_a_user_runs_again() -> None:
    """It may count, or send an alert."""
    before = Counting.made
    outcomes = Failed(Counting(3)).each(100)
    assert Counting.made == before + 1
    assert {str(outcome.error) for outcome in outcomes} == {"bad item 3"}


def failure_of(source: str) -> Exception:
    """Return the exception that a text of Python raises."""
    try:
        exec(source, {})
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError(source)


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (HTTPError("http://localhost", 404, "gone", Message(), None), "filename code reason"),
        (failure_of("unknown"), "name"),
        (failure_of("(1).unknown"), "name obj"),
        (failure_of("import unknown.module"), "name path msg"),
        (failure_of("compile('a b', 'file', 'exec')"), "filename lineno offset text msg"),
        (failure_of("b'\\xff'.decode()"), "encoding object start end reason"),
        (BlockingIOError(11, "wait", 5), "errno strerror filename characters_written"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_built_in_classes_keep(error: Exception, names: str) -> None:
    """Attributes that are in no `__dict__`."""
    copied = own_copy(error)
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    for name in names.split():
        assert getattr(copied, name) == getattr(error, name)
        assert getattr(copied, name) is not None or name in {"path", "filename"}


def test_an_errno_that_came_later() -> None:
    """An OSError is made as a FileNotFoundError if it is made with this number."""
    error = OSError(2, "text")
    assert type(error) is FileNotFoundError
    plain = OSError("text")
    plain.errno = 2
    plain.args = (2, "text")
    copied = own_copy(plain)
    assert type(copied) is OSError
    assert (copied.errno, copied.args) == (2, (2, "text"))


def test_what_cannot_be_copied_is_wrapped() -> None:
    """The original is its cause, and its text is kept."""
    error = ValueError("first")
    error.__dict__["__notes__"] = 5
    copied = own_copy(error)

    assert type(copied) is BatchFunctionError
    assert str(copied) == (
        "process_batch raised ValueError, which cannot be copied (TypeError: 'int' object is not iterable): first"
    )
    assert copied.__cause__ is error


def test_what_cannot_be_shown_is_wrapped_too() -> None:
    """Even if its text is an error."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise TypeError

    error = Unspeakable()
    error.__dict__["__notes__"] = 5
    assert "cannot be shown" in str(own_copy(error))


@pytest.mark.parametrize("kind", [Single, Changeling])
def test_a_copy_that_is_none(kind: type[Exception]) -> None:
    """Is made in the other way."""
    error = kind("x")

    assert own_copy(error) is not error
    assert type(own_copy(error)) is kind
    assert own_copy(error).args == error.args


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(1),
        StopAsyncIteration(),
        CancelledError(),
    ],
)
def test_what_must_not_reach_callers(error: BaseException) -> None:
    """Is wrapped, with its name and a cure in the text."""
    copied = own_copy(error)

    assert type(copied) is BatchFunctionError
    assert type(error).__name__ in str(copied)
    assert str(copied).endswith("; raise an ordinary exception instead")
    assert copied.__cause__ is error
    assert Failed(error).divisible == isinstance(error, Exception)


def test_wrapped_errors_are_not_wrapped_again() -> None:
    """The cause stays the first one."""
    first = StopIteration(1)
    wrapped = BatchFunctionError("raised StopIteration")
    assert own_copy(wrapped).__cause__ is wrapped
    assert own_copy(wrapped).args == ("raised StopIteration",)
    wrapped.__cause__ = first

    assert own_copy(wrapped).__cause__ is first
    assert type(own_copy(wrapped)) is BatchFunctionError


def test_each_has_its_own() -> None:
    """As many as items, all different; raising them leaves the original alone."""
    original = ValueError("x")
    outcomes = Failed(original).each(5)
    for outcome in outcomes:
        with pytest.raises(ValueError, match="x"):
            raise outcome.error

    assert len({id(outcome.error) for outcome in outcomes}) == 5
    assert list(traceback.walk_tb(original.__traceback__)) == []


class Witness:
    """An object of a batch."""


def test_no_exception_holds_the_items() -> None:
    """Nor those that it refers to. Frames that have ended are cleared, but not those that run or are suspended."""
    kept: list[Exception] = []

    def generator() -> Iterator[int]:
        number = 41
        try:
            number //= 0
        except ZeroDivisionError as error:
            kept.append(error)
        yield number
        yield number + 1

    def work(items: list[Witness]) -> None:
        mine = items[0]
        try:
            int(mine)  # type: ignore[call-overload]  # it is no number
        except TypeError as error:
            raise ValueError from ExceptionGroup("both", [error, *kept])

    suspended = generator()
    assert next(suspended) == 41
    items = [Witness()]
    gone = weakref.ref(items[0])
    here = "a local variable"
    try:
        work(items)
    except ValueError as error:
        verdict = Failed(error)
        outcomes = judge([error], 1)
    del items

    assert gone() is None
    assert isinstance(outcomes, list)
    assert here
    assert next(suspended) == 42
    frames = list(traceback.walk_tb(verdict.cause.__traceback__))
    assert [frame.f_code.co_name for frame, _ in frames][1:] == ["work"]
    assert "raise ValueError" in traceback.format_tb(verdict.cause.__traceback__)[1]
