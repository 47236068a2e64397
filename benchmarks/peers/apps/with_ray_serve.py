"""Ray Serve."""

from __future__ import annotations

import signal
import sys

import ray
from ray import serve
from starlette.requests import Request

from . import MOST, model, values


@serve.deployment(max_ongoing_requests=4096)
class Predictions:
    """The model in batches."""

    def __init__(self) -> None:
        """Load the model, in the process of the replica."""
        self.predictor = model()

    @serve.batch(max_batch_size=MOST, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
    async def predict(self, rows: list[list[float]]) -> list[float]:
        """Call the model."""
        return values(self.predictor, rows)

    async def __call__(self, request: Request) -> float:
        """Put a row into a batch."""
        answer: float = await self.predict(await request.json())
        return answer


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    app = Predictions.bind()  # type: ignore[attr-defined]  # the decorator has made a deployment of it
    serve.run(app, name="predictions", route_prefix="/predict", logging_config={"enable_access_log": False})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
