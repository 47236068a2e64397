"""The settings of the example: those of `batchers.serving`, and the model that it loads."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from batchers.serving import settings as serving

from .model import MODEL_FILE, Description, ModelCall

# TensorFlow reads it when it is imported, after this module: its notes on the processor are no part of our log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


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


class Settings(serving.Settings):
    """The settings of the example."""

    model_call: ModelCall = Field(
        default="compiled",
        validation_alias="MODEL_CALL",
        title="how the model is called: one `tf.function`, `model.predict`, or no model, with 11 ms a call",
        description="compiled, keras or emulated",
    )
    model_file: Annotated[Path, AfterValidator(_usable)] = Field(
        default=MODEL_FILE,
        validation_alias="MODEL_FILE",
        title="the model, which `make train` makes",
        description="a .keras file with a .json file beside it",
    )

    @property
    def description(self) -> Description:
        """What the model file needs beside it."""
        return read_description(self.model_file)


def read_settings() -> Settings:
    """Return the settings; for wrong ones, end the program with one line, which names variable and cure."""
    return serving.read_settings(Settings)
