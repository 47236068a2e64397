"""What the runner and its processes have in common: their arguments, and how they know of each other's end."""

from __future__ import annotations

import argparse
import asyncio
import logging.config
import os
from collections.abc import Callable
from typing import Any

from uvicorn.config import LOGGING_CONFIG


def arguments(about: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all processes take."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--path", default="/predict", help="the route of predictions (default: %(default)s)")
    parser.add_argument(
        "--alone", metavar="PATH", help="one more route, which calls the model for each request alone"
    )
    parser.add_argument("--app-dir", default=".", help="the folder of the model's module (default: this one)")
    parser.add_argument("--log-level", default="info", choices=("critical", "error", "warning", "info", "debug"))
    for name in ("--socket", "--ready", "--runner", "--fd"):  # of the runner's own: see `runner.Processes`
        parser.add_argument(name, type=str if name == "--socket" else int, help=argparse.SUPPRESS)
    return parser


def set_up_logging(level: str) -> None:
    """Log as uvicorn does, with the number of the process."""
    found: dict[str, Any] = {**LOGGING_CONFIG, "formatters": {**LOGGING_CONFIG["formatters"]}}
    default = {**found["formatters"]["default"], "fmt": "%(levelprefix)s [%(process)d] %(message)s"}
    found["formatters"]["default"] = default
    found["loggers"] = {
        **found["loggers"],
        "uvicorn": {"handlers": ["default"], "level": level.upper(), "propagate": False},
        "batchers": {"handlers": ["default"], "level": level.upper(), "propagate": False},
    }
    logging.config.dictConfig(found)


def say_ready(file: int) -> None:
    """Tell the runner that this process serves."""
    os.write(file, b"ready")
    os.close(file)


def end_with_runner(file: int, stop: Callable[[], object]) -> None:
    """Call `stop` when the runner has ended, however it did: it has the other end of the pipe `file`."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(file)
        stop()

    loop.add_reader(file, ended)
