"""One deployment of Ray Serve, with `serve.batch` or that of batchers, under a closed loop of calls by handles.

The variant is the argument; the result goes to stdout as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from typing import Any

import ray
from ray import serve

from batchers.integrations.ray import batch

DECORATORS: dict[str, Any] = {"serve.batch": serve.batch, "batchers": batch}
SECONDS, PATIENCE = 5.0, 10.0
CALLERS = (8, 64, 256)
CANCELLED = 0.1
"""Share of calls that are cancelled, after a time up to that of two batches."""
BATCH_SECONDS = 0.005
"""What the function takes, whatever it gets."""


def deployment(variant: str) -> Any:  # noqa: ANN401 - of Ray
    """Return the same class, with one decorator or the other."""

    @serve.deployment(max_ongoing_requests=1024)
    class Model:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        @DECORATORS[variant](max_batch_size=64, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
        async def predict(self, items: list[int]) -> list[int]:
            self.sizes.append(len(items))
            await asyncio.sleep(BATCH_SECONDS)
            return [2 * item for item in items]

        async def __call__(self, item: int) -> int:
            found: int = await self.predict(item)
            return found

        def take_sizes(self) -> list[int]:
            found, self.sizes = self.sizes, []
            return found

    return Model.bind()  # type: ignore[attr-defined]  # the decorator has made a deployment of it


async def load(handle: Any, callers: int) -> dict[str, Any]:  # noqa: ANN401 - of Ray
    """Let so many callers ask again and again; return what they saw."""
    end = time.monotonic() + SECONDS
    seconds: list[float] = []
    found = {"wrong": 0, "no_outcome": 0, "cancelled": 0, "failed": 0}
    chance = random.Random(callers)  # noqa: S311 - guards nothing

    async def ask(caller: int) -> None:
        number = caller * 1_000_000
        while time.monotonic() < end:
            number += 1
            begin = time.monotonic()
            response = handle.remote(number)
            if chance.random() < CANCELLED:
                await asyncio.sleep(chance.random() * 2 * BATCH_SECONDS)
                response.cancel()
            try:
                answer = await asyncio.wait_for(response, PATIENCE)
            except TimeoutError:
                found["no_outcome"] += 1
            except (asyncio.CancelledError, ray.exceptions.RayError) as error:
                is_cancelled = isinstance(error, asyncio.CancelledError | ray.exceptions.TaskCancelledError)
                is_cancelled = is_cancelled or "Cancelled" in type(error).__name__
                found["cancelled" if is_cancelled else "failed"] += 1
            else:
                found["wrong"] += answer != 2 * number
                seconds.append(time.monotonic() - begin)

    await handle.take_sizes.remote()
    await asyncio.gather(*(ask(caller) for caller in range(callers)))
    sizes = await handle.take_sizes.remote()
    seconds.sort()
    return {
        "callers": callers,
        "rate": len(seconds) / SECONDS,
        "p99": seconds[int(0.99 * len(seconds))] if seconds else float("inf"),
        "mean_batch": sum(sizes) / max(len(sizes), 1),
        **found,
    }


async def main(variant: str) -> None:
    """Deploy, load, and print."""
    handle = await asyncio.to_thread(serve.run, deployment(variant), name="model", route_prefix=None)
    await load(handle, 8)  # warms up
    sys.stdout.write(json.dumps([await load(handle, callers) for callers in CALLERS]) + "\n")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        asyncio.run(main(sys.argv[1]))
    finally:
        serve.shutdown()
        ray.shutdown()
