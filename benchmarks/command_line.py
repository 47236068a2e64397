"""What the command line of `python -m benchmarks` says: one subcommand for each job, each with its own options."""

from __future__ import annotations

import argparse
from typing import get_args

from .load.run import Backend, ModelCall, Ramp, Route
from .theory import command as simulation
from .theory import processes

PARTS = {
    "load": "Locust's users, as in the reports of async-batcher",
    "latency": "latencies at fixed rates, by an open loop",
    "micro": "what a call costs",
    "peers": "other servers with the same model, loaded by wrk",
    "policies": "policies in simulated time, and on real servers",
    "lengths": "texts of different lengths, for a real model (needs `make recipes`)",
    "faults": "cancelled calls, killed servers, hostile clients, overload",
    "start": "imports and starts",
}

LONG = "long"

PORT = "port of the server under test; default: a free one"

DESCRIPTION = """Measure what is missing in assets/results, and write BENCHMARK.md and its pictures from it.

An interrupted run goes on where it was: a result of the same scale, code, machine and packages is kept."""

EXAMPLES = """examples:
  python -m benchmarks quick                      a short version, in under ten minutes
  python -m benchmarks all                        all but soaks and mutants (`long`), in about three hours
  python -m benchmarks peers --only mosec         the measurements whose names have mosec in them
  python -m benchmarks cell --most-users 500      one load measurement of your own
  python -m benchmarks simulate --policy greedy   one case in simulated time
  python -m benchmarks COMMAND --help             the options of a command"""


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.set_defaults(quick=False, again=False, only="", port=None)
    commands = found.add_subparsers(dest="what", required=True, metavar="COMMAND")
    whole = {
        "quick": "a short version of all parts",
        "all": "all parts but soaks and mutants, in about three hours",
        LONG: "soaks and mutants, in an hour and a half",
    }
    for name, text in {**whole, **PARTS}.items():
        _add_measurements(_command(commands, name, text, f"{name} --again"), is_part=name in PARTS)
    report = _command(
        commands, "report", "BENCHMARK.md and its pictures, from the results that there are", "report"
    )
    _add_quick(report)
    _add_cell(_command(commands, "cell", "one load measurement of your own; nothing is kept", "cell --workers 2"))
    example = "simulate --policy window:0.01 --source clients:64"
    text = "one case in simulated time, beside what theory says; prints JSON, with its units"
    simulation.add_options(_command(commands, "simulate", text, example))
    text = "several front ends and one process with the model, in simulated time; prints JSON"
    processes.add_options(_command(commands, "front-ends", text, "front-ends --front-ends 2 --cores 16"))
    return found


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=text, description=f"Measure: {text}.", epilog=f"example: python -m benchmarks {example}"
    )


def _add_measurements(command: argparse.ArgumentParser, *, is_part: bool) -> None:
    add = command.add_argument
    add("--again", action="store_true", help="measure also what was measured")
    add("--only", default="", metavar="TEXT", help="only measurements with this text in their names")
    add("--port", type=int, default=None, help=PORT)
    if is_part:
        _add_quick(command)


def _add_quick(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--quick", action="store_true", help="the short version, marked as such")


def _add_cell(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--port", type=int, default=None, help=PORT)
    add("--path", choices=get_args(Route), default="/optimized_predict", help="default: %(default)s")
    add("--backend", choices=get_args(Backend), default="asyncio", help="default: %(default)s")
    add("--model-call", choices=get_args(ModelCall), default="compiled", help="default: %(default)s")
    add("--ramp", choices=get_args(Ramp), default="v0.2.0", help="the users of which report; default: %(default)s")
    add("--most-users", type=int, default=3000, help="users at the top; default: %(default)s")
    add(
        "--time-scale",
        type=float,
        default=1.0,
        help="1: the ramp's own seconds, 0.1: a tenth; default: %(default)s",
    )
    add("--workers", type=int, default=1, help="processes of the server; default: %(default)s")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
