"""What the environment says. The only place that reads it."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from batchers import BatcherOptions, OptionError, Options
from batchers.decorator import Backend

from .model import MODEL_FILE, ModelCall

PREFIX = "BATCHER_"

# TensorFlow reads it when it is imported, after this module: its notes on the processor are no part of our log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _limit(value: int) -> int:
    if value < 1 and value != -1:
        msg = "must be 1 or more, or -1 for no limit"
        raise ValueError(msg)
    return value


def _existing(file: Path) -> Path:
    for needed in (file, file.with_suffix(".json")):
        if not needed.is_file():
            msg = f"{needed} does not exist: name a model file, or make one with 'python -m server.train'"
            raise ValueError(msg)
    return file


Limit = Annotated[int, AfterValidator(_limit)]


class Settings(BaseSettings):
    """The server's settings. Each is an environment variable; `batchers.Options` says what limits mean."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, validate_default=True)

    backend: Backend = "asyncio"
    max_batch_size: Limit = 256
    max_queue_time: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    concurrency: Limit = 1
    max_queue_size: Limit = 1024
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_body_size: Annotated[int, Field(ge=1)] = 65_536
    """Bytes of a request's body at most."""
    model_call: ModelCall = Field("compiled", validation_alias="MODEL_CALL")
    model_file: Annotated[Path, AfterValidator(_existing)] = Field(MODEL_FILE, validation_alias="MODEL_FILE")

    def batcher_options(self) -> BatcherOptions:
        """Return the options of the batcher."""
        return {
            "max_batch_size": self.max_batch_size,
            "max_queue_time": self.max_queue_time,
            "concurrency": self.concurrency,
            "max_queue_size": self.max_queue_size,
            "timeout": self.timeout,
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
            close = get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            return f"the environment variable {name} is not known; {hint}"
    return ""


def _one_line(error: ValidationError | OptionError) -> str:
    if isinstance(error, OptionError):
        return str(error)
    found: dict[str, str] = {}
    details: Any
    for details in error.errors():
        name = str(details["loc"][0])
        variable = _variable(name) if name in Settings.model_fields else name
        text = details["msg"].removeprefix("Value error, ")
        found.setdefault(variable, f"{variable}={details['input']!s}: {text}")
    return "; ".join(found.values())
