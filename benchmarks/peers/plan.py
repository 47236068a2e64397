"""Which servers are measured, how often and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.scale import Scale
from benchmarks.spread import interleaved

from .http import COSTS, SERVERS, SETTLE_SECONDS, WARM_UP_SECONDS

REPEATS = 3
START_SECONDS = 10.0
"""What a start takes, for the estimate."""


@dataclass(frozen=True)
class Visit:
    """One server, once, with all numbers of connections."""

    server: str
    seconds: int
    """For each number."""

    @property
    def estimate(self) -> float:
        """Seconds that it takes, roughly."""
        return (
            (self.seconds + SETTLE_SECONDS) * len((SERVERS | COSTS)[self.server].connections)
            + WARM_UP_SECONDS
            + START_SECONDS
        )


def visits(scale: Scale) -> dict[str, Visit]:
    """Return the measurements by their names, in turns. A quick run leaves them out: they take half an hour."""
    if scale == "quick":
        return {}
    found: dict[str, Visit] = {}
    for servers, seconds in ((SERVERS, 3), (COSTS, 5)):
        for server in interleaved(list(servers), REPEATS):
            number = sum(visit.server == server for visit in found.values()) + 1
            found[name(server, number)] = Visit(server, 20 if server.endswith("a full queue") else seconds)
    return found


def name(server: str, number: int) -> str:
    """Return the name of a measurement; `number` counts from 1."""
    plain = server.lower().replace(", ", "-").replace(" ", "-").replace("/", "").replace("'", "")
    return f"peers/http/{plain}-{number}"
