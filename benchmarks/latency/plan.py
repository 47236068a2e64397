"""Which open-loop measurements there are."""

from __future__ import annotations

from benchmarks.load.run import ModelCall
from benchmarks.scale import Scale
from server.model import Emulated

from .run import Place, Rate

SMALL = 8
"""Rows in a batch where the emulated device is to be overloaded."""

CAPACITY = SMALL / (Emulated.CALL + SMALL * Emulated.ROW)
"""Requests a second that it serves then: 722."""


def rates(scale: Scale) -> dict[str, Rate]:
    """Return the measurements by their names. Quick ones are once and short, and fewer."""
    full = scale == "full"
    found: dict[str, Rate] = {}
    seconds, repeats = (6.0, 3) if full else (3.0, 1)

    def add(name: str, place: Place, model_call: ModelCall, rate: float, queue: int = 0) -> None:
        # Above its capacity a server settles when the queue is full.
        excess = max(rate - CAPACITY, 0) if queue else 0
        fill = queue / excess if excess else 0.0
        found[f"latency/{name}-{rate:.0f}"] = Rate(
            place=place,
            model_call=model_call,
            rate=rate,
            seconds=round(seconds + fill, 1),
            settle=round(1.0 + fill, 1),
            repeats=repeats,
            max_batch_size=SMALL if queue else 256,
            max_queue_size=queue or 1024,
        )

    for rate in (100, 500, 2000) if full else (100, 1000):
        add("process-emulated", "process", "emulated", rate)
    for rate in (100, 500, 1000) if full else (100, 500):
        add("http-emulated", "http", "emulated", rate)
    for rate in (500, 2000) if full else (500,):
        add("http-compiled", "http", "compiled", rate)
    # A queue of 256 is served in 0.36 s; one of 1024, the default, in 1.4 s, when the callers have left.
    for queue in (256, 1024):
        add(f"http-overload-{queue}", "http", "emulated", 1200, queue)
    if full:
        add("http-overload-256", "http", "emulated", 700, 256)
    return found
