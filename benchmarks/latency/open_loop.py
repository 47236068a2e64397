"""Poisson arrivals, with latencies counted from the moment at which a call was to be made.

A client that waits for one answer before it sends the next request stops asking when the server stalls, and so
leaves out the latencies that the stall would have caused ("coordinated omission"). Here the moments are drawn
beforehand, and a call that is made late counts from its own moment all the same.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

PATIENCE = 10.0
"""Seconds for the last answers; who has none then counts as unanswered."""


class Arrivals(BaseModel):
    """Calls at a mean rate per second, for some seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float
    seconds: float
    settle: float = 1.0
    """Seconds at the beginning of which nothing is kept: connections open, threads start, queues fill."""
    seed: int

    def moments(self) -> Iterator[float]:
        """Return when each call is to be made, in seconds from the start: a Poisson process."""
        chance = random.Random(self.seed)  # noqa: S311 - not for secrets
        moment = chance.expovariate(self.rate)
        while moment < self.seconds:
            yield moment
            moment += chance.expovariate(self.rate)


@dataclass
class Seen:
    """What the callers saw whose moment came after the time to settle."""

    latencies: list[float] = field(default_factory=list)
    """Of those who were answered, in seconds."""
    failures: Counter[str] = field(default_factory=Counter)
    lateness: list[float] = field(default_factory=list)
    """How late each call was made, in seconds: it is a part of its latency."""


async def offer(arrivals: Arrivals, call: Callable[[], Awaitable[None]]) -> Seen:
    """Make the calls, and return what came of them."""
    loop = asyncio.get_running_loop()
    seen = Seen()
    tasks: set[asyncio.Task[None]] = set()

    async def one(moment: float) -> None:
        begun = time.monotonic()
        failure = ""
        try:
            await call()
        except asyncio.CancelledError:
            failure = "unanswered"
            raise
        except Exception as error:  # noqa: BLE001 - each kind is counted
            failure = str(error) if isinstance(error, RefusedError) else type(error).__name__
        finally:
            if moment >= start + arrivals.settle:
                seen.lateness.append(begun - moment)
                if failure:
                    seen.failures[failure] += 1
                else:
                    seen.latencies.append(time.monotonic() - moment)

    def begin(moment: float) -> None:
        task = loop.create_task(one(moment))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    start = time.monotonic() + 0.2
    # Timers of event loops are as coarse as a millisecond; those of threads are not.
    pacer = threading.Thread(target=_pace, args=(arrivals, start, loop, begin), daemon=True)
    pacer.start()
    await asyncio.to_thread(pacer.join)
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=PATIENCE)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
    return seen


class RefusedError(Exception):
    """An answer that is no result; the message is how it is counted."""


def _pace(
    arrivals: Arrivals, start: float, loop: asyncio.AbstractEventLoop, begin: Callable[[float], None]
) -> None:
    for moment in arrivals.moments():
        delay = start + moment - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        loop.call_soon_threadsafe(begin, start + moment)
