"""Several front ends and one process with the model, in simulated time: requests a second on so many cores.

Each event loop takes all that waits for it as one turn: `turn` seconds, and `each` for each request. The model
runs on a thread of its own and takes all requests that wait for it as one batch. Busy threads share the cores
equally. Times are seconds. No random numbers: a closed loop of clients, which ask again at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from .bounds import Line

CLIENT, FRONT_END, MODEL_LOOP, MODEL = "load generator", "front end", "event loop of the model", "model"

WARM_UP = 0.2
"""The share of the answers that does not count."""


class NotPositiveError(ValueError):
    """A number that has to be above 0 is not."""


@dataclass(frozen=True)
class Loop:
    """How long an event loop takes for a turn, and for each message in it."""

    turn: float
    each: float


MEASURED_MODEL = Line(680e-6, 5.2e-6, 200)


@dataclass(frozen=True)
class Costs:
    """What was measured with wrk and the compiled model on two cores (decision 74)."""

    client: Loop = Loop(10e-6, 11e-6)
    front_end: Loop = Loop(85e-6, 12.5e-6)
    """A request passes it twice."""
    model_loop: Loop = Loop(210e-6, 8e-6)
    """A request passes it twice."""
    model: Line = MEASURED_MODEL


class Network(BaseModel):
    """What came out."""

    model_config = ConfigDict(frozen=True)

    requests_per_second: float
    batch_size: float
    busy: dict[str, float]
    """Share of time in which the busiest thread of a kind had work. At 1, with free cores, it is the bound."""
    cores_used: float


@dataclass
class _Message:
    """A request, or its answer."""

    front_end: int
    is_answer: bool = False


def _none(_: list[_Message]) -> None:
    """Deliver nothing."""


@dataclass
class _Station:
    """A thread: what waits for it, and what is left of its turn."""

    cost: Loop
    most: int
    as_one: bool = False
    """Whether a turn ends as a whole, as a batch of the model does."""
    joins: frozenset[bool] = frozenset({True, False})
    """Requests (False) and answers (True) that wait for the end of the turn and leave together, as frames do."""
    deliver: Callable[[list[_Message]], None] = _none
    waiting: list[_Message] = field(default_factory=list)
    turn: list[_Message] = field(default_factory=list)
    joined: list[_Message] = field(default_factory=list)
    left: float = 0.0
    """Seconds of work, alone on a core, until the next message leaves."""
    busy: float = 0.0
    turns: int = 0
    messages: int = 0
    answers: int = 0

    def start(self) -> None:
        """Take all that waits, when idle."""
        if not self.turn and self.waiting:
            self.turn, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
            self.left = self.cost.turn + self.cost.each * (len(self.turn) if self.as_one else 1)
            self.turns += 1

    def step(self) -> None:
        """End what `left` was for."""
        done, self.turn = (self.turn, []) if self.as_one else (self.turn[:1], self.turn[1:])
        self.messages += len(done)
        self.answers += sum(message.is_answer for message in done)
        self.left = self.cost.each
        self.joined += [message for message in done if message.is_answer in self.joins]
        self.deliver([message for message in done if message.is_answer not in self.joins])
        if not self.turn:
            done, self.joined = self.joined, []
            self.deliver(done)


def simulate(
    front_ends: int, connections: int, cores: int, *, answers: int = 100_000, costs: Costs | None = None
) -> Network:
    """Run until so many requests are answered, after a warm-up. NotPositiveError for a number below 1."""
    if min(front_ends, connections, cores, answers) < 1:
        msg = "front ends, connections, cores and answers must be 1 or more"
        raise NotPositiveError(msg)
    costs = costs or Costs()
    most = 2 * connections
    client = _Station(costs.client, most, joins=frozenset())
    doors = [_Station(costs.front_end, most, joins=frozenset({False})) for _ in range(front_ends)]
    loop = _Station(costs.model_loop, most, joins=frozenset({True}))
    model = _Station(Loop(costs.model.a, costs.model.b), costs.model.most, as_one=True)
    _connect(client, doors, loop, model)
    client.waiting = [_Message(number % front_ends) for number in range(connections)]
    stations = [client, *doors, loop, model]
    _run(stations, cores, lambda: client.answers >= WARM_UP * answers)
    for station in stations:
        station.busy, station.turns, station.messages, station.answers = 0.0, 0, 0, 0
    seconds, worked = _run(stations, cores, lambda: client.answers >= answers)
    return Network(
        requests_per_second=client.answers / seconds,
        batch_size=model.messages / max(model.turns, 1),
        busy={
            CLIENT: client.busy / seconds,
            FRONT_END: max(door.busy for door in doors) / seconds,
            MODEL_LOOP: loop.busy / seconds,
            MODEL: model.busy / seconds,
        },
        cores_used=worked / seconds,
    )


def _connect(client: _Station, doors: list[_Station], loop: _Station, model: _Station) -> None:
    """Say where the messages of each station go."""

    def to_doors(messages: list[_Message]) -> None:
        for message in messages:
            doors[message.front_end].waiting.append(message)

    def asked(messages: list[_Message]) -> None:
        to_doors([_Message(message.front_end) for message in messages])

    def passed_on(messages: list[_Message]) -> None:
        for message in messages:
            (client if message.is_answer else loop).waiting.append(message)

    def admitted(messages: list[_Message]) -> None:
        model.waiting += [message for message in messages if not message.is_answer]
        to_doors([message for message in messages if message.is_answer])

    def ran(messages: list[_Message]) -> None:
        loop.waiting += [_Message(message.front_end, is_answer=True) for message in messages]

    client.deliver, loop.deliver, model.deliver = asked, admitted, ran
    for door in doors:
        door.deliver = passed_on


def _run(stations: list[_Station], cores: int, is_over: Callable[[], bool]) -> tuple[float, float]:
    """Let time pass until it is over; return the seconds, and those of all cores. Busy threads share the cores."""
    passed = worked = 0.0
    while not is_over():
        for station in stations:
            station.start()
        busy = [station for station in stations if station.turn]
        speed = min(1.0, cores / len(busy))
        work = min(station.left for station in busy)
        passed += work / speed
        worked += work * len(busy)
        for station in busy:
            station.busy += work / speed
            station.left -= work
        for station in busy:
            if station.left <= 0.0:
                station.step()
    return passed, worked


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a simulation."""
    for name, default, text in [
        ("--front-ends", 4, "processes that speak HTTP"),
        ("--connections", 256, "clients that ask again at once"),
        ("--cores", 16, "that all share, the load generator too"),
        ("--answers", 100_000, "that are simulated"),
    ]:
        parser.add_argument(name, type=int, default=default, help=f"{text}; default: %(default)s")


def run(options: argparse.Namespace) -> str:
    """Simulate; return the result as JSON. NotPositiveError for a number below 1."""
    found = simulate(options.front_ends, options.connections, options.cores, answers=options.answers)
    rounded = json.loads(found.model_dump_json(), parse_float=lambda number: round(float(number), 2))
    return json.dumps(rounded, indent=1)
