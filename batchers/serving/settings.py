"""The settings of a server, from the environment. No other module of this package reads it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from batchers import Adaptive, BatcherOptions, OptionError, Options

PREFIX = "BATCHER_"

CANNOT_START = 3
"""The status of a process that cannot start: the supervisor of uvicorn ends then, and does not start it again."""

ALIKE = 0.85
"""How alike the names of two variables are when one of them is taken for a slip."""

LARGEST_WARMED_UP = 256


def _limit(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError
    return value


Limit = Annotated[int, AfterValidator(_limit)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

LIMIT = "a whole number, 1 or more, or -1 for no limit"


class Settings(BaseSettings):
    """The settings of a server. Each is an environment variable; `batchers.Options` says what limits mean.

    The titles say what they mean, and the descriptions what is allowed, in the words of an error message.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, validate_default=True, protected_namespaces=()
    )

    backend: Literal["threading", "asyncio"] = Field(
        default="asyncio", title="the backend of the batcher", description="threading or asyncio"
    )
    max_batch_size: Limit = Field(default=256, title="the largest number of items in a batch", description=LIMIT)
    max_queue_time: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        title="time that an item waits for more items while a slot is free; not with policy adaptive",
        description="a number of seconds, 0 or more; unset: no waiting for more items",
    )
    policy: Literal["greedy", "adaptive"] = Field(
        default="greedy", title="when a batch starts", description="greedy or adaptive"
    )
    concurrency: Limit | Literal["auto"] = Field(
        default=1, title="batches that run at the same time", description=f"{LIMIT}, or auto"
    )
    max_queue_size: Limit = Field(
        default=1024, title="items that wait at most; more are refused with 503", description=LIMIT
    )
    timeout: Seconds | None = Field(
        default=None,
        title="time limit of a request, with its wait; then 504",
        description="a number of seconds above 0; unset: no limit",
    )
    batch_timeout: Seconds | None = Field(
        default=None,
        title="time limit of a batch; then 504 for its requests",
        description="a number of seconds above 0; unset: no limit",
    )
    cancel_abandoned: bool = Field(
        default=True,
        title="whether a batch of an async model is cancelled when all of its clients have left",
        description="true or false",
    )
    drain_delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.0,
        title="time between SIGTERM and the end of the listener",
        description="a number of seconds, 0 or more",
    )
    drain_timeout: Seconds = Field(
        default=20.0,
        title="time after the end of the listener; then requests that still wait get 503",
        description="a number of seconds above 0",
    )
    direct: bool = Field(
        default=True,
        title="whether predictions take the direct path, if there is no middleware, dependency or mount",
        description="true or false",
    )
    max_body_size: Annotated[int, Field(ge=1)] = Field(
        default=65_536, title="size of a body at most; then 413", description="a whole number of bytes, 1 or more"
    )
    body_timeout: Seconds = Field(
        default=0.9, title="time limit for a body to come; then 408", description="a number of seconds above 0"
    )
    head_timeout: Seconds = Field(
        default=10.0,
        title="time limit for the head of a request, up to a quarter more; idle connections are not affected",
        description="a number of seconds above 0",
    )

    def batcher_options(self) -> BatcherOptions:
        """Return the options of the batcher."""
        return {
            "max_batch_size": self.max_batch_size,
            "max_queue_time": self.max_queue_time,
            "policy": Adaptive() if self.policy == "adaptive" else None,
            "concurrency": self.concurrency,
            "max_queue_size": self.max_queue_size,
            "timeout": self.timeout,
            "batch_timeout": self.batch_timeout,
            "cancel_abandoned": self.cancel_abandoned,
            "name": "predictions",
        }

    @property
    def largest_batch(self) -> int:
        """The batch size to warm the model up for."""
        return min(Options(max_batch_size=self.max_batch_size).batch_limit, LARGEST_WARMED_UP)


class ModelSettings(Settings):
    """The settings of `batchers.serving:app`, which serves any model."""

    model: str = Field(
        title="the model",
        description="package.module:name, a function of a list, or an object with predict(batch)",
    )


S = TypeVar("S", bound=Settings)


def read_settings(kind: type[S]) -> S:
    """Return the settings; for wrong ones, end the program with one line, which names variable and cure."""
    unknown = _unknown_variable([_variable(kind, field) for field in kind.model_fields])
    if unknown:
        cannot_start(unknown)
    try:
        settings = kind()
        Options(**settings.batcher_options())
    except ValidationError as error:
        cannot_start(_one_line(kind, error))
    except OptionError as error:
        cannot_start(_in_variables(str(error)))
    return settings


def cannot_start(reason: str) -> NoReturn:
    """End the program with one line, and the status after which uvicorn's supervisor ends, too."""
    print(f"error: {reason}", file=sys.stderr)  # noqa: T201 - there is no log yet
    sys.exit(CANNOT_START)


def _variable(kind: type[Settings], field: str) -> str:
    alias = kind.model_fields[field].validation_alias
    return str(alias) if alias else PREFIX + field.upper()


def _unknown_variable(known: list[str]) -> str:
    """Return what is wrong with a variable that is not known, or is nearly one of ours; empty: nothing."""
    for name in os.environ:
        upper = name.upper()
        if upper in known:
            continue
        if upper.startswith(PREFIX):
            short = {variable.removeprefix(PREFIX): variable for variable in known}
            close = [short[each] for each in get_close_matches(upper.removeprefix(PREFIX), short, n=1)]
        else:
            close = get_close_matches(upper, known, n=1, cutoff=ALIKE)
        if close:
            return f"the environment variable {name} is not known; did you mean {close[0]}?"
        if upper.startswith(PREFIX):
            return f"the environment variable {name} is not known; known are {', '.join(known)}"
    return ""


def _in_variables(text: str) -> str:
    """Return the message of an OptionError with the variables in the place of the options."""
    for field in sorted(Settings.model_fields, key=len, reverse=True):
        text = text.replace(field, PREFIX + field.upper()) if len(field) > len("policy") else text
    return text


def _one_line(kind: type[Settings], error: ValidationError) -> str:
    found: dict[str, str] = {}
    details: Any
    for details in error.errors():
        name = _field(kind, details["loc"])
        variable = _variable(kind, name)
        if details["type"] == "missing":
            found.setdefault(variable, f"{variable} is not set: it must be {kind.model_fields[name].description}")
            continue
        reason = str(details.get("ctx", {}).get("error", ""))
        allowed = reason or f"must be {kind.model_fields[name].description}"
        found.setdefault(variable, f"{variable}={details['input']!s}: {allowed}")
    return "; ".join(found.values())


def _field(kind: type[Settings], place: Iterable[Any]) -> str:
    first = next(iter(place))
    return next(field for field in kind.model_fields if first in {field, _variable(kind, field)})
