"""What the environment says. The only place that reads it."""

from __future__ import annotations

import os
import sys
import zipfile
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from batchers import Adaptive, BatcherOptions, OptionError, Options
from batchers.decorator import Backend

from .model import MODEL_FILE, Description, ModelCall

PREFIX = "BATCHER_"

# TensorFlow reads it when it is imported, after this module: its notes on the processor are no part of our log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _limit(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError
    return value


def _usable(file: Path) -> Path:
    """Refuse what can be seen to be no model file without loading TensorFlow."""
    beside = file.with_suffix(".json") if file.name else file
    for needed in (file, beside):
        try:
            found = needed.is_file()
        except OSError:  # a name that no file can have
            found = False
        if not found:
            msg = f"{needed} does not exist: name a model file, or make one with 'python -m server.train'"
            raise ValueError(msg)
    if not zipfile.is_zipfile(file):
        msg = f"{file} is no .keras file: make one with 'python -m server.train'"
        raise ValueError(msg)
    read_description(file)
    return file


def read_description(file: Path) -> Description:
    """Return the description beside a model file. ValueError, in one line, when it is not one."""
    beside = file.with_suffix(".json")
    try:
        return Description.model_validate_json(beside.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        msg = f"{beside} does not describe the model: {where + ': ' if where else ''}{problem['msg']}"
        raise ValueError(msg) from None


Limit = Annotated[int, AfterValidator(_limit)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

LIMIT = "a whole number, 1 or more, or -1 for no limit"


class Settings(BaseSettings):
    """The server's settings. Each is an environment variable; `batchers.Options` says what limits mean.

    The descriptions say what is allowed, in the words of an error message.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, validate_default=True)

    backend: Backend = Field("asyncio", description="threading or asyncio")
    max_batch_size: Limit = Field(256, description=LIMIT)
    max_queue_time: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="a number of seconds, 0 or more; unset: no waiting for more items"
    )
    policy: Literal["greedy", "adaptive"] = Field("greedy", description="greedy or adaptive")
    concurrency: Limit | Literal["auto"] = Field(1, description=f"{LIMIT}, or auto")
    max_queue_size: Limit = Field(1024, description=LIMIT)
    timeout: Seconds | None = Field(None, description="a number of seconds above 0; unset: no limit")
    batch_timeout: Seconds | None = Field(None, description="a number of seconds above 0; unset: no limit")
    cancel_abandoned: bool = Field(True, description="true or false")
    drain_delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="a number of seconds, 0 or more"
    )
    drain_timeout: Seconds = Field(20.0, description="a number of seconds above 0")
    max_body_size: Annotated[int, Field(ge=1)] = Field(65_536, description="a whole number of bytes, 1 or more")
    body_timeout: Seconds = Field(0.9, description="a number of seconds above 0")
    head_timeout: Seconds = Field(10.0, description="a number of seconds above 0")
    model_call: ModelCall = Field(
        "compiled", validation_alias="MODEL_CALL", description="compiled, keras or emulated"
    )
    model_file: Annotated[Path, AfterValidator(_usable)] = Field(
        MODEL_FILE, validation_alias="MODEL_FILE", description="a .keras file with a .json file beside it"
    )

    @property
    def description(self) -> Description:
        """What the model file needs beside it."""
        return read_description(self.model_file)

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
        return min(Options(max_batch_size=self.max_batch_size).batch_limit, 256)


def read_settings() -> Settings:
    """Return the settings; on bad ones, end the program with a line that names variable and cure."""
    unknown = _unknown_variables()
    if unknown:
        sys.exit(f"error: {unknown}")
    try:
        return Settings()  # type: ignore[call-arg]  # the aliases hide the defaults from mypy
    except (ValidationError, OptionError) as error:
        sys.exit(f"error: {_one_line(error)}")


def _variable(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    return str(alias) if alias else PREFIX + field.upper()


def _unknown_variables() -> str:
    known = [_variable(field) for field in Settings.model_fields]
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            short = {variable.removeprefix(PREFIX): variable for variable in known}
            close = get_close_matches(name.upper().removeprefix(PREFIX), short, n=1)
            hint = f"did you mean {short[close[0]]}?" if close else f"known are {', '.join(known)}"
            return f"the environment variable {name} is not known; {hint}"
    return ""


def _one_line(error: ValidationError | OptionError) -> str:
    if isinstance(error, OptionError):
        return str(error)
    found: dict[str, str] = {}
    details: Any
    for details in error.errors():
        name = next(field for field in Settings.model_fields if details["loc"][0] in {field, _variable(field)})
        variable = _variable(name)
        reason = str(details.get("ctx", {}).get("error", ""))
        allowed = reason or f"must be {Settings.model_fields[name].description}"
        found.setdefault(variable, f"{variable}={details['input']!s}: {allowed}")
    return "; ".join(found.values())
