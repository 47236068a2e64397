"""`python -m batchers.serving --workers N`: one process with the model, and N front ends that speak HTTP."""

from __future__ import annotations

import argparse
import sys

from . import runner
from .processes import arguments, set_up_logging


def main() -> int:
    """Read the arguments, and run."""
    parser = arguments(
        "Serve the model that BATCHER_MODEL names with several front ends. The settings are environment "
        "variables, as for batchers.serving:app; each request has a time limit, 30 s without BATCHER_TIMEOUT. "
        "SIGHUP replaces the front ends, one after the other. Linux only."
    )
    parser.prog = "python -m batchers.serving"
    parser.add_argument("--workers", type=int, default=1, help="front ends, 1 or more (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--access-log", action=argparse.BooleanOptionalAction, default=True, help="log each request"
    )
    parser.add_argument("--timeout-keep-alive", type=int, default=5, metavar="SECONDS", help="as for uvicorn")
    parser.add_argument(
        "--start-timeout", type=float, default=300.0, metavar="SECONDS", help="for each process (default: 300)"
    )
    parser.add_argument(
        "--stop-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="for each kind of process (default: 30)",
    )
    given = parser.parse_args()
    if given.workers < 1:
        parser.error("--workers must be 1 or more")
    if sys.platform != "linux":
        parser.error("several front ends need Linux: run `uvicorn batchers.serving:app`")
    set_up_logging(given.log_level)
    return runner.run(given)


if __name__ == "__main__":
    sys.exit(main())
