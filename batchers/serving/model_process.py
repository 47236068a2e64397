"""The process with the model: it serves the batcher to the front ends on a unix socket."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

import uvicorn

from batchers.remote import serve

from .application import ModelService, app_of_model, routes_of
from .environment import models_of_environment
from .packed import AnswersCodec, answers_of
from .payloads import ModelError
from .processes import arguments, end_with_runner, say_ready, set_up_logging
from .settings import cannot_start


async def run(given: argparse.Namespace) -> None:
    """Load the model, serve it until SIGTERM, and end when what was accepted is answered."""
    model, settings = models_of_environment()
    service = ModelService(model, settings)
    first, *others = routes_of(service, given.path, given.alone)
    app = app_of_model(service, (first, *others), title="batchers", description="", version="0")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    end_with_runner(given.runner, stopping.set)
    try:
        await service.start()
    except ModelError as error:
        cannot_start(f"BATCHER_MODEL={settings.model}: {error}")

    async def metrics(_: bytes) -> bytes:
        return await service.metrics()

    async def statistics(_: bytes) -> bytes:
        return json.dumps(
            {"backend": settings.backend, "policy": settings.policy, **await service.statistics()}
        ).encode()

    server = serve(
        service.batcher,
        given.socket,
        codec=AnswersCodec(first.endpoint),
        about={"openapi": app.api.openapi()},
        answers={"/metrics": metrics, "/stats": statistics}
        | {route.path: answers_of(route.endpoint) for route in others},
    )
    async with server:
        say_ready(given.ready)
        await stopping.wait()
        await service.stop()


def main() -> None:
    """Run with the event loop that uvicorn would take."""
    given = arguments("the process with the model").parse_args()
    sys.path.insert(0, given.app_dir)
    set_up_logging(given.log_level)
    with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
        runner.run(run(given))


if __name__ == "__main__":
    main()
