"""Ray Serve: more than one machine, with a batcher in each replica. `serve run ray_serve:app` in this folder."""

import asyncio
import os

from ray import serve
from starlette.requests import Request

from batchers.integrations.ray import Replica, batch, queue_policy


@serve.deployment(
    max_ongoing_requests=128,  # at least twice max_batch_size: a batch forms while one runs
    autoscaling_config={
        "min_replicas": int(os.environ.get("REPLICAS", "1")),
        "max_replicas": 4,
        "target_ongoing_requests": 64,
        "policy": {"policy_function": queue_policy},
    },
    user_config={"predict": {"max_batch_size": 32}},
)
class Model(Replica):
    @batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def predict(self, items: list[float]) -> list[float]:
        await asyncio.sleep(0.005)  # the model
        return [2 * item for item in items]

    async def __call__(self, request: Request) -> float:
        return await self.predict(float(await request.body()))


app = Model.bind()
