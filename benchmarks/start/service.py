"""Import TensorFlow, then make the server ready, and print how many seconds each took, as JSON."""

from __future__ import annotations

import sys
import time

if __name__ == "__main__":
    sys.dont_write_bytecode = False  # a second start has what the first has compiled
    start = time.perf_counter()
    import asyncio

    import tensorflow as tf  # noqa: F401 - what is measured

    imported = time.perf_counter()
    from batchers.serving.application import ModelService
    from batchers.serving.models import Model
    from server.model import DiabetesModel
    from server.settings import read_settings

    settings = read_settings()
    model = DiabetesModel(settings.model_file, settings.model_call, settings.description)
    service = ModelService(Model(model), settings)

    async def start_and_stop() -> float:
        """Return when it was ready."""
        await service.start()
        ready = time.perf_counter()
        await service.stop()
        return ready

    ready = asyncio.run(start_and_stop())
    print(f'{{"tensorflow": {imported - start}, "server": {ready - imported}}}')  # noqa: T201 - its result
