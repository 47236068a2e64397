"""Codecs: how items and results travel. The server names one; values come back as that codec makes them."""

from __future__ import annotations

import importlib
import json
import pickle
import secrets
import weakref
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from batchers.errors import BatcherError, OptionError

from .frames import MOST_PARTS, Buffer, FrameError, Part

_plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: object) -> bytes:
    """Return a value as JSON. Raises TypeError or ValueError for what JSON cannot say."""
    return _plain(value).encode("utf-8", "surrogatepass")


def from_json(data: memoryview, **hooks: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of a JSON text. Raises ValueError."""
    return json.loads(str(data, "utf-8", "surrogatepass"), **hooks)


class NotEncodedError(BatcherError, TypeError):
    """The codec of the connection cannot say an item or a result; the message names both."""


class NotDecodedError(BatcherError, ValueError):
    """An item or a result has come, but cannot be made here; for instance, its class is not known."""


class Codec(Protocol):
    """Encodes a list of values, and decodes it in the other process."""

    name: str
    keeps: bool
    """True if decoded values may refer to the parts; then `decode` frees the parts itself."""

    def encode(self, values: list[Any]) -> Sequence[Buffer]:
        """Return the parts. Raises any error for a value that the codec cannot say."""
        ...

    def decode(self, parts: Sequence[Part], count: int) -> list[Any]:
        """Return the values, with a NotDecodedError in the place of each that cannot be made.

        Raises FrameError, ValueError or TypeError for parts that are no list of `count` values.
        """
        ...


class JsonCodec:
    """JSON: tuples come back as lists, and keys of mappings as text."""

    name = "json"
    keeps = False

    def encode(self, values: list[Any]) -> Sequence[Buffer]:
        """Return one part."""
        return (to_json(values),)

    def decode(self, parts: Sequence[Part], count: int) -> list[Any]:
        """Return the values of one part."""
        return _checked(from_json(_only(parts)), count)


class MsgpackCodec:
    """MessagePack, by the package msgspec: JSON's values and bytes, in less time and space."""

    name = "msgpack"
    keeps = False

    def __init__(self) -> None:
        """Load msgspec. Raises OptionError if it is not installed."""
        msgpack: Any = _package("msgspec.msgpack", self.name)
        self._encode: Callable[[object], bytes] = msgpack.Encoder().encode
        self._decode: Callable[[Buffer], Any] = msgpack.Decoder().decode

    def encode(self, values: list[Any]) -> Sequence[Buffer]:
        """Return one part."""
        return (self._encode(values),)

    def decode(self, parts: Sequence[Part], count: int) -> list[Any]:
        """Return the values of one part."""
        return _checked(self._decode(_only(parts)), count)


class BytesCodec:
    """Values that are bytes already: they travel as they are."""

    name = "bytes"
    keeps = False

    def encode(self, values: list[Any]) -> Sequence[Buffer]:
        """Return the sizes, and all values in a row."""
        sizes = array("Q", [len(value) for value in values]).tobytes()
        if len(values) == 1 and type(values[0]) is bytes:
            return sizes, values[0]  # without a copy
        return sizes, b"".join(values)

    def decode(self, parts: Sequence[Part], count: int) -> list[Any]:
        """Return the values as bytes."""
        return [bytes(value) for value in split(parts, count)]


class PickleCodec(BytesCodec):
    """Pickle: any Python value. Whoever can write to the socket can run code; both ends have to name it."""

    name = "pickle"

    def encode(self, values: list[Any]) -> Sequence[Buffer]:
        """Return each value, pickled by itself."""
        return super().encode([pickle.dumps(value, pickle.HIGHEST_PROTOCOL) for value in values])

    def decode(self, parts: Sequence[Part], count: int) -> list[Any]:
        """Return the values; what fails, fails for its own value only."""
        return [_unpickled(value) for value in split(parts, count)]


class ArraysCodec:
    """JSON, and in it arrays of numpy and bytes, which travel as they lie in memory; arrays come back read-only.

    An array needs a dtype of numbers, booleans, times or fixed text. Its place in the JSON is a mapping with one
    key, a secret of the sender, so that no value of a user is taken for one.
    """

    name = "arrays"
    keeps = True

    def __init__(self) -> None:
        """Load numpy. Raises OptionError if it is not installed."""
        self._numpy: Any = _package("numpy", self.name)
        self._key = secrets.token_hex(8)

    def encode(self, values: list[Any]) -> Sequence[Buffer]:
        """Return the JSON, and one part for each array; one for all, if they are arrays of one kind and shape."""
        if (alike := self._alike(values)) is not None:
            return alike
        buffers: list[Buffer] = []

        def store(value: Any) -> dict[str, Any]:  # noqa: ANN401 - of any type
            return {self._key: [len(buffers), *self._stored(value, buffers)]}

        encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=store)
        text = encoder.encode(values).encode("utf-8", "surrogatepass")
        if len(buffers) > MOST_PARTS - 3:
            msg = f"{len(buffers)} arrays in one call; a call may have {MOST_PARTS - 3}"
            raise OptionError(msg)
        return self._key.encode(), text, *buffers

    def _alike(self, values: list[Any]) -> Sequence[Buffer] | None:
        """Return the parts for arrays of one kind and shape, in much less time; None for other values."""
        numpy = self._numpy
        first: Any = values[0] if values else None
        if type(first) is not numpy.ndarray or first.dtype.kind not in "biufc" or not first.size:
            return None
        dtype, shape = first.dtype, first.shape
        for value in values:
            if type(value) is not numpy.ndarray or value.dtype != dtype or value.shape != shape:
                return None
        data = numpy.ascontiguousarray(first) if len(values) == 1 else numpy.stack(values)
        return b"", to_json([dtype.str, shape]), memoryview(data).cast("B")

    def _stored(self, value: Any, buffers: list[Buffer]) -> list[Any]:  # noqa: ANN401 - of any type
        if isinstance(value, bytes | bytearray | memoryview):
            buffers.append(bytes(value))
            return []
        found = (
            self._numpy.asarray(value) if isinstance(value, self._numpy.ndarray | self._numpy.generic) else None
        )
        if found is None or found.dtype.hasobject or found.dtype.fields is not None:
            msg = f"Object of type {type(value).__name__} is not JSON serializable"
            raise TypeError(msg)
        data = self._numpy.ascontiguousarray(found)
        buffers.append(memoryview(data).cast("B") if data.size and data.dtype.kind not in "mM" else data.tobytes())
        return [found.dtype.str, list(found.shape)]

    def decode(self, parts: Sequence[Part], count: int) -> list[Any]:
        """Return the values; arrays in shared memory hold their place there until nothing refers to them."""
        if len(parts) < 2:  # noqa: PLR2004 - the key and the JSON
            msg = "no values"
            raise FrameError(msg)
        key = str(parts[0].data, "ascii")
        if not key:
            dtype, shape = from_json(parts[1].data)
            return list(self._loaded(parts[2], dtype, [count, *shape]))

        def load(pairs: list[tuple[str, Any]]) -> Any:  # noqa: ANN401 - of any type
            if len(pairs) == 1 and pairs[0][0] == key:
                number, *rest = pairs[0][1]
                return self._loaded(parts[2 + number], *rest)
            return dict(pairs)

        text = parts[1]
        values = from_json(text.data, object_pairs_hook=load) if len(parts) > 2 else from_json(text.data)  # noqa: PLR2004
        if text.free is not None:
            text.free()
        return _checked(values, count)

    def _loaded(self, part: Part, dtype: str | None = None, shape: list[int] | None = None) -> Any:  # noqa: ANN401
        if dtype is None:
            data = bytes(part.data)
            if part.free is not None:
                part.free()
            return data
        found = self._numpy.frombuffer(part.data, dtype) if len(part.data) else self._numpy.empty(0, dtype)
        if part.free is not None:
            found = self._numpy.asarray(_Place(part, found.__array_interface__))
        found.flags.writeable = False
        return found.reshape(shape)


class _Place:
    """The owner of an array in shared memory: when no array refers to it any more, the place is free."""

    def __init__(self, part: Part, interface: dict[str, Any]) -> None:
        """Store what numpy needs to make an array that refers to this object."""
        self.__array_interface__ = {**interface, "data": (interface["data"][0], True)}
        self._data = part.data  # keeps the memory mapped
        if part.free is not None:
            weakref.finalize(self, part.free).atexit = False


CODECS: dict[str, Callable[[], Codec]] = {
    "json": JsonCodec,
    "msgpack": MsgpackCodec,
    "arrays": ArraysCodec,
    "bytes": BytesCodec,
    "pickle": PickleCodec,
}


def codec_of(given: str | Codec) -> Codec:
    """Return a codec by its name, or a codec that was given. Raises OptionError for an unknown name."""
    if not isinstance(given, str):
        return given
    if given not in CODECS:
        msg = f"codec must be one of {', '.join(CODECS)}, not {given!r}"
        raise OptionError(msg)
    return CODECS[given]()


def agreed(named: str | Codec | None, offered: str) -> Codec:
    """Return the codec of a connection. Raises OptionError if the two ends do not agree."""
    if named is not None and not isinstance(named, str):
        if named.name == offered:
            return named
        named = named.name
    if named is not None and named != offered:
        msg = f"the batcher is served with the codec {offered!r}: connect with it, not with {named!r}"
        raise OptionError(msg)
    if offered == "pickle" and named is None:
        msg = "the batcher is served with the codec 'pickle': connect with codec='pickle' if you trust the server"
        raise OptionError(msg)
    if offered not in CODECS:
        msg = f"the batcher is served with a codec that is not known here, {offered!r}"
        raise OptionError(msg)
    return codec_of(offered)


def not_encoded(what: str, value: object, codec: Codec, error: Exception) -> NotEncodedError:
    """Return the error for an item or result that a codec cannot say."""
    return NotEncodedError(
        f"{what} of the type {type(value).__name__} cannot travel with the codec {codec.name!r} ({error}): "
        f"convert it, or serve with another codec ({', '.join(CODECS)})"
    )


def split(parts: Sequence[Part], count: int) -> list[memoryview]:
    """Return the values of `BytesCodec`, as views. Raises FrameError."""
    if len(parts) != 2 or len(parts[0].data) != 8 * count:  # noqa: PLR2004 - the sizes and the values
        msg = f"no {count} values"
        raise FrameError(msg)
    data, start, found = parts[1].data, 0, []
    for size in parts[0].data.cast("Q"):
        found.append(data[start : start + size])
        start += size
    if start != len(data):
        msg = "values with other sizes than said"
        raise FrameError(msg)
    return found


def _unpickled(value: memoryview) -> Any:  # noqa: ANN401 - any Python value
    try:
        return pickle.loads(value)  # noqa: S301 - both ends have named it
    except Exception as error:  # noqa: BLE001 - a class of the user may raise anything here
        return NotDecodedError(f"a value that was sent with pickle cannot be made here: {error!r}")


def _only(parts: Sequence[Part]) -> memoryview:
    if len(parts) != 1:
        msg = f"{len(parts)} parts in the place of one"
        raise FrameError(msg)
    return parts[0].data


def _checked(values: Any, count: int) -> list[Any]:  # noqa: ANN401 - any JSON value
    if not isinstance(values, list) or len(values) != count:
        msg = f"no {count} values"
        raise FrameError(msg)
    return values


def _package(name: str, codec: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"the codec {codec!r} needs the package {name.partition('.')[0]}: install it in both processes"
        raise OptionError(msg) from error
