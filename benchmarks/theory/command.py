"""`python -m benchmarks simulate`: one simulation, beside what theory says of it."""

from __future__ import annotations

import argparse
import json
from math import inf
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from batchers import Adaptive, Greedy, OptionError, Options, Policy, Window

from .bounds import Line, best_mean, closed_form, closed_loop_bound, control_limit_mean, lower_bound
from .simulator import Bursts, Clients, Poisson, Recorded, Service, Simulated, Source, simulate

POLICIES = "greedy, adaptive, or window:SECONDS"
SOURCES = "poisson:RATE, bursts:LOW,HIGH, clients:NUMBER, or recorded:FILE (a JSON list of seconds)"


UNITS = {
    **dict.fromkeys(("mean", "p50", "p95", "p99", "longest_hold"), "seconds"),
    **dict.fromkeys(("throughput", "goodput"), "items a second"),
    **dict.fromkeys(("items", "batch_size", "refused", "expired"), "items"),
    "utilisation": "share of the time",
    "reasons": "batches",
    "theory": "seconds; throughput_bound in items a second",
}


class SimulationError(ValueError):
    """What was asked for cannot be simulated; the message says why."""


class Case(BaseModel):
    """What is simulated, but for the policy. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    a: float
    b: float
    most: int
    """Items in a batch."""
    items: int
    jitter: float = 0.0
    speed_up: tuple[float, ...] = ()
    devices: int = 1
    deadline: float | None = None
    """Of each call."""
    seed: int = 1

    @property
    def line(self) -> Line:
        """How long a batch takes."""
        return Line(self.a, self.b, self.most)

    def simulate(self, policy: str) -> Simulated:
        """Run it. SimulationError for what makes no sense."""
        source = source_of(self.source)
        try:
            batcher = Options(
                policy=policy_of(policy),
                max_batch_size=self.most,
                concurrency=self.devices,
                max_queue_size=-1,
                timeout=self.deadline,
            )
        except OptionError as error:
            raise SimulationError(str(error)) from None
        if self.items < 1 or min(self.a, self.b, self.jitter) < 0 or self.line.tau(1) <= 0:
            msg = "--items must be 1 or more, --a, --b and --jitter 0 or more, and a batch must take some time"
            raise SimulationError(msg)
        service = Service(self.line, self.jitter, self.speed_up)
        deadline = inf if self.deadline is None else self.deadline
        return simulate(batcher, service, source, items=self.items, seed=self.seed, deadline=deadline)

    def theory(self) -> dict[str, float]:
        """Return what is known of it."""
        return theory(self.line, source_of(self.source), self.devices)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a simulation."""
    add = parser.add_argument
    add("--policy", default="adaptive", help=f"{POLICIES}; default: %(default)s")
    add("--source", default="poisson:1000", help=f"{SOURCES}; rates in items a second; default: %(default)s")
    add("--a", type=float, default=0.01099, help="seconds of a batch; n items take a + b * n (%(default)s)")
    add("--b", type=float, default=0.00001, help="seconds of an item; default: %(default)s")
    add("--jitter", type=float, default=0.0, help="of the time of a batch, as a share; default: %(default)s")
    add("--speed-up", default="", help="s(1),s(2),... of batches that share cores; default: each is alone")
    add("--max-batch-size", type=int, default=200, help="items; default: %(default)s")
    add("--concurrency", type=int, default=1, help="batches at a time; default: %(default)s")
    add("--items", type=int, default=100_000, help="that are simulated; default: %(default)s")
    add("--seed", type=int, default=1, help="of the random numbers; default: %(default)s")
    add("--deadline", type=float, default=None, help="of each call, in seconds; default: none")


def run(options: argparse.Namespace) -> str:
    """Simulate; return the result and the bounds as JSON. SimulationError for what makes no sense."""
    try:
        speed_up = tuple(float(part) for part in filter(None, options.speed_up.split(",")))
    except ValueError as error:
        raise SimulationError(str(error)) from None
    case = Case(
        source=options.source,
        a=options.a,
        b=options.b,
        most=options.max_batch_size,
        items=options.items,
        jitter=options.jitter,
        speed_up=speed_up,
        devices=options.concurrency,
        deadline=options.deadline,
        seed=options.seed,
    )
    found = case.simulate(options.policy).model_dump(mode="json")
    return json.dumps({"units": UNITS, **found, "theory": case.theory()}, indent=1)


def policy_of(text: str) -> Policy:
    """Return the policy that a text names."""
    name, _, number = text.partition(":")
    if name == "window" and number:
        return Window(_numbers(number, 1)[0])
    if text in {"greedy", "adaptive"}:
        return Greedy() if text == "greedy" else Adaptive()
    msg = f"--policy must be {POLICIES}, not {text!r}"
    raise SimulationError(msg)


def source_of(text: str) -> Source:
    """Return the callers that a text names."""
    name, _, rest = text.partition(":")
    if name == "poisson":
        return Poisson(*_numbers(rest, 1))
    if name == "bursts":
        return Bursts(*_numbers(rest, 2))
    if name == "clients":
        return Clients(int(_numbers(rest, 1)[0]))
    if name == "recorded":
        try:
            return Recorded(tuple(map(float, json.loads(Path(rest).read_bytes()))))
        except (OSError, ValueError, TypeError) as error:
            msg = f"--source recorded: {rest} is no JSON list of seconds ({error})"
            raise SimulationError(msg) from None
    msg = f"--source must be {SOURCES}, not {text!r}"
    raise SimulationError(msg)


def _numbers(text: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or min(found) <= 0:
        msg = f"{text!r} must be {count} number{'s' * (count > 1)} above 0"
        raise SimulationError(msg)
    return found


def theory(line: Line, source: Source, devices: int) -> dict[str, float]:
    """Return what is known of a case: seconds for open loops, items a second for closed ones."""
    if isinstance(source, Clients):
        return {"throughput_bound": closed_loop_bound(line, source.number, source.least + source.mean)}
    if not isinstance(source, Poisson) or source.rate >= line.capacity * devices:
        return {}
    found = {"lower_bound": lower_bound(line, source.rate, devices)}
    if devices == 1:
        mean, limit = best_mean(line, source.rate)
        found |= {
            "greedy_mean": control_limit_mean(line, source.rate),
            "best_mean": mean,
            "best_control_limit": limit,
            "closed_form_unlimited_batches": closed_form(line, source.rate),
        }
    return found
