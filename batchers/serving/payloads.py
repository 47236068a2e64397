"""Items and results as JSON: their types come from the annotations of a model."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import is_dataclass
from math import isfinite
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter
from pydantic_core import from_json, to_jsonable_python

from .answers import BadItemError

_NO_BATCHES = (str, bytes, int, float, dict, BaseModel)
"""Types of the first parameter that show that a function takes one item."""


class ModelError(Exception):
    """A model cannot be served; the message says why, in one line."""


def _adapter_of(annotation: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type
    """Return what validates a type, without NaN and infinity; models of pydantic have their own configuration."""
    try:
        return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)


class ItemType:
    """The type of items or results: how it is read, and its schema."""

    def __init__(self, annotation: Any, *, schema: dict[str, Any] | None = None) -> None:  # noqa: ANN401 - a type
        """Initialise the type. `schema` replaces the schema of the annotation.

        Raises ModelError for what pydantic cannot validate.
        """
        try:
            self.adapter: TypeAdapter[Any] = _adapter_of(annotation)
            self.many: TypeAdapter[list[Any]] = _adapter_of(list[annotation])
        except PydanticUserError as error:
            msg = f"items of the type {annotation!r} cannot come as JSON: {_first_line(error)}"
            raise ModelError(msg) from error
        self.schema = schema
        self._validate = self.adapter.validator.validate_json
        self._is_any = annotation is Any

    def example(self, given: Any) -> tuple[Any, Any]:  # noqa: ANN401 - the user's
        """Return an example as JSON, and as an item. Raises ModelError if it is no item."""
        try:
            item = self.adapter.validate_python(given)
            return json.loads(dump(item)), item
        except (ValueError, TypeError) as error:
            msg = f"example={_shortened(given)} is no item: {_first_line(error)}"
            raise ModelError(msg) from error

    def _loaded(self, body: bytes) -> Any:  # noqa: ANN401 - any JSON value
        return from_json(body, allow_inf_nan=False)

    def parse(self, body: bytes) -> Any:  # noqa: ANN401 - the user's
        """Return the item in a body. Raises BadItemError."""
        try:
            return self._loaded(body) if self._is_any else self._validate(body)
        except ValueError as error:  # ValidationError is one
            raise BadItemError(error) from None

    def parse_many(self, body: bytes) -> list[Any]:
        """Return the list of items in a body. Raises BadItemError."""
        try:
            return self.many.validate_python(self._loaded(body)) if self._is_any else self.many.validate_json(body)
        except ValueError as error:
            raise BadItemError(error) from None


def item_types(function: Callable[..., Any]) -> tuple[Any, Any]:
    """Return the types of items and results of a batch function; Any where it has no annotation.

    The function takes a list of items and returns a list of results, or is a coroutine function that does.

    Raises ModelError for annotations that cannot be evaluated.
    """
    if not inspect.isroutine(function):
        function = getattr(function, "__call__")  # noqa: B004, B009 - of an object, whose class may have annotations
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        msg = f"the annotations of {_name_of(function)} cannot be evaluated: {error}"
        raise ModelError(msg) from error
    try:
        inspect.signature(function).bind([])
    except TypeError as error:
        msg = f"{_name_of(function)} cannot be called with one list: {error}"
        raise ModelError(msg) from error
    except ValueError:
        pass  # a function of C without a signature
    result = hints.pop("return", Any)
    origin: Any = get_origin(result)
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        result = (get_args(result) or (Any,))[-1]
    first = next(iter(hints.values()), Any)
    kind: Any = first
    if isinstance(first, type) and (is_dataclass(kind) or issubclass(kind, _NO_BATCHES)):
        name = first.__name__
        msg = f"{_name_of(function)} takes {name}: a model takes a list, for example list[{name}]"
        raise ModelError(msg)
    return _element(first), _without_errors(_element(result))


def _name_of(function: object) -> str:
    return str(getattr(function, "__qualname__", function))


def _element(annotation: Any) -> Any:  # noqa: ANN401 - a type
    """Return the type of the elements of a list or sequence; Any for other types."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Iterable) and origin is not tuple and len(arguments) == 1:
        return arguments[0]
    return Any


def _without_errors(annotation: Any) -> Any:  # noqa: ANN401 - a type
    """Return a type without the exceptions in a union: they stand for results that are errors."""
    if get_origin(annotation) not in {Union, UnionType}:
        return annotation
    kinds = [each for each in get_args(annotation) if not (isinstance(each, type) and issubclass(each, Exception))]
    return Union[tuple(kinds)] if kinds else Any  # noqa: UP007 - made at run time


def dump(result: Any) -> bytes:  # noqa: ANN401 - the user's
    """Return a result as JSON: what pydantic and the json module know, arrays and scalars of numpy.

    Raises ValueError for NaN and infinity, and TypeError for other types.
    """
    if type(result) is float and isfinite(result):
        return repr(result).encode()  # for finite floats JSON's own form
    try:
        text = json.dumps(result, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        msg = f"the model answered {_shortened(result)}, which is no JSON: put UnprocessableError in its place"
        raise ValueError(msg) from None
    return text.encode()


def _plain(value: Any) -> Any:  # noqa: ANN401 - the user's
    """Return what the json module knows, for one value that it does not know."""
    if hasattr(value, "__array__"):
        value = value.__array__()  # a tensor
    if hasattr(value, "tolist"):
        return value.tolist()  # arrays and scalars of numpy
    try:
        return to_jsonable_python(value, inf_nan_mode="constants")
    except ValueError as error:
        msg = f"the model answered a {type(value).__name__}, which JSON cannot say: convert it in the model"
        raise TypeError(msg) from error


def schemas(**types: tuple[ItemType, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas by name, and the definitions to which they refer, for an OpenAPI document.

    Each type comes with its mode, "validation" or "serialization".
    """
    inputs: list[Any] = [(name, mode, kind.adapter) for name, (kind, mode) in types.items() if kind.schema is None]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    result: dict[str, Any] = {name: schema for (name, _), schema in found.items()}
    own = {name: kind.schema for name, (kind, _) in types.items() if kind.schema is not None}
    return result | own, definitions.get("$defs", {})


def rows_schema(convert: Any) -> dict[str, Any]:  # noqa: ANN401 - of `batchers.arrays`
    """Return the JSON schema of the items that a converter of `batchers.arrays` takes."""
    if isinstance(convert, dict):
        parts = {str(name): rows_schema(part) for name, part in convert.items()}
        return {"type": "object", "properties": parts, "required": list(parts)}
    if isinstance(convert, tuple):
        parts_ = [rows_schema(part) for part in convert]
        return {"type": "array", "prefixItems": parts_, "minItems": len(parts_), "maxItems": len(parts_)}
    kinds = {"b": "boolean", "i": "integer", "u": "integer"}
    schema: dict[str, Any] = {"type": kinds.get(convert.dtype.kind, "number")}
    for length in reversed(convert.shape):
        schema = {"type": "array", "items": schema}
        if length is not None:
            schema |= {"minItems": length, "maxItems": length}
        elif convert.max_length is not None:
            schema |= {"maxItems": convert.max_length}
    return schema


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _shortened(value: object, most: int = 100) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
