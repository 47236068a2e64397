"""Items and results as JSON: their types come from the annotations of a model."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from math import isfinite
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from .answers import BadItemError


class ModelError(Exception):
    """A model cannot be served; the message says why, in one line."""


class ItemType:
    """The type of items or results: how it is read, and its schema."""

    def __init__(self, annotation: Any, *, schema: dict[str, Any] | None = None) -> None:  # noqa: ANN401 - a type
        """Initialise the type. `schema` replaces the schema of the annotation.

        Raises ModelError for what pydantic cannot validate.
        """
        try:
            self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self.many: TypeAdapter[list[Any]] = TypeAdapter(list[annotation])
        except PydanticUserError as error:
            msg = f"items of the type {annotation!r} cannot come as JSON: {_first_line(error)}"
            raise ModelError(msg) from error
        self.schema = schema

    def parse(self, body: bytes) -> Any:  # noqa: ANN401 - the user's
        """Return the item in a body. Raises BadItemError."""
        try:
            return self.adapter.validate_json(body)
        except ValidationError as error:
            raise BadItemError(error) from None

    def parse_many(self, body: bytes) -> list[Any]:
        """Return the list of items in a body. Raises BadItemError."""
        try:
            return self.many.validate_json(body)
        except ValidationError as error:
            raise BadItemError(error) from None


def item_types(function: Callable[..., Any]) -> tuple[Any, Any]:
    """Return the types of items and results of a batch function; Any where it has no annotation.

    The function takes a list of items and returns a list of results, or is a coroutine function that does.

    Raises ModelError for annotations that cannot be evaluated.
    """
    if not hasattr(function, "__annotations__"):
        function = type(function).__call__  # an object that is called
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        msg = f"the annotations of {getattr(function, '__qualname__', function)} cannot be evaluated: {error}"
        raise ModelError(msg) from error
    result = hints.pop("return", Any)
    if get_origin(result) is not None and issubclass(get_origin(result), Awaitable):
        result = (get_args(result) or (Any,))[-1]
    first = next(iter(hints.values()), Any)
    return _element(first), _without_errors(_element(result))


def _element(annotation: Any) -> Any:  # noqa: ANN401 - a type
    """Return the type of the elements of a list or sequence; Any for other types."""
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
    except ValueError as error:
        msg = f"the model answered {_shortened(result)}, which JSON cannot say: {error}"
        raise ValueError(msg) from error
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
