"""What a result or an exception means, without any batcher."""

from __future__ import annotations

import traceback
from concurrent.futures import CancelledError
from typing import Any, Self

import numpy as np
import pytest

from batchers.core.outcomes import Err, Failed, judge, own_copy
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


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "returned None;"),
        ("ab", "a str, which is no sequence of results;"),
        (b"ab", "a bytes, which"),
        (memoryview(b"ab"), "a memoryview, which"),
        ({"a": 1, "b": 2}, "a dict, which"),
        ({1, 2}, "a set, which"),
        (iter([1, 2]), "a list_iterator;"),
        (3, "returned a int;"),
        (np.array(3.0), "returned a ndarray;"),
        ([1], "1 results for 2 items;"),
        ([1, 2, 3], "3 results for 2 items;"),
    ],
)
def test_wrong_results(result: object, text: str) -> None:
    """The message says what came and what should have come."""
    verdict = judge(result, 2)

    assert isinstance(verdict, Failed)
    assert isinstance(verdict.cause, BatchResultError)
    assert text in str(verdict.cause)
    assert str(verdict.cause).endswith(
        "return a list (or tuple, or array) with one result for each item, in the order of the items"
    )
    assert verdict.divisible


@pytest.mark.parametrize("result", [[1, 2], (1, 2), np.array([1, 2]), np.array([[1], [2]])], ids=repr)
def test_right_results(result: Any) -> None:
    """Lists, tuples and arrays are taken element by element."""
    assert judge(result, 2) == [1, 2]


def test_a_frame_is_no_sequence() -> None:
    """A table iterates over its columns, which are not the items: what has keys is refused."""

    class Frame(list[int]):
        def keys(self) -> list[str]:
            return ["a", "b"]

    assert isinstance(judge(Frame([1, 2]), 2), Failed)


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
    """A group that says how to derive another, with what only it knows."""

    __slots__ = ()

    def derive(self, members: Any) -> Any:
        return Deriving(self.message + ", derived", members)


def test_groups_derive_themselves() -> None:
    """Who knows how is asked, and not made without a constructor."""
    copied = own_copy(Deriving("several", [ValueError("one")]))
    assert isinstance(copied, Deriving)
    assert copied.message == "several, derived"


def test_what_cannot_be_copied_is_wrapped() -> None:
    """The original is its cause."""

    class Uncopyable(Exception):
        """Cannot be copied at all."""

        def __reduce_ex__(self, _: object) -> Any:
            raise TypeError

        made = 0

        def __new__(cls, *args: object) -> Any:
            cls.made += 1
            if cls.made > 1:
                raise TypeError
            return super().__new__(cls, *args)

    error = Uncopyable("first")
    copied = own_copy(error)

    assert type(copied) is BatchFunctionError
    assert "which cannot be copied" in str(copied)
    assert copied.__cause__ is error


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
