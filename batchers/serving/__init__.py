"""A batcher behind HTTP, whole or in pieces; needs the extra `serving`.

Whole: `BATCHER_MODEL=package.module:name uvicorn batchers.serving:app` serves any model, and `create_app` makes
such an application in a program. In pieces, for an application of FastAPI or Starlette: `Service`, `process`,
`add_error_handlers` and `add_operations`. Modules here import the library and its integrations.
"""

from __future__ import annotations

from typing import Any

try:
    from .answers import UnprocessableError, add_error_handlers
    from .application import create_app
    from .endpoints import ServedApp
    from .payloads import ModelError
    from .requests import process
    from .service import Service, add_operations
    from .settings import ModelSettings, Settings
except ModuleNotFoundError as error:
    msg = f"batchers.serving needs {error.name}: install the extra `serving`"
    raise ModuleNotFoundError(msg, name=error.name) from error

__all__ = [
    "ModelError",
    "ModelSettings",
    "ServedApp",
    "Service",
    "Settings",
    "UnprocessableError",
    "add_error_handlers",
    "add_operations",
    "create_app",
    "process",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of a module
    """Make `app` when it is asked for, so that an import reads no environment."""
    if name == "app":
        from .environment import app_of_environment  # noqa: PLC0415 - as above

        globals()["app"] = app_of_environment()
        return globals()["app"]
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
