"""A batcher in an application of one's own: uvicorn own_fastapi:app

curl http://127.0.0.1:8000/length -H 'Content-Type: application/json' -d '"abc"'
"""

from typing import Annotated

from fastapi import Body, FastAPI, Request

from batchers import create_batcher
from batchers.serving import Service, add_error_handlers, add_operations, process


def lengths(batch: list[str]) -> list[int]:
    return [len(text) for text in batch]


batcher = create_batcher("asyncio", lengths, max_batch_size=64, max_queue_size=1000, timeout=2.0)
service = Service(batcher)
app = FastAPI(lifespan=service.lifespan)  # drains on SIGTERM, then stops the batcher
add_error_handlers(app)  # a full queue is 503 with Retry-After, a missed deadline 504
add_operations(app, service)  # /healthz, /readyz, /metrics, /stats


@app.post("/length")
async def length(text: Annotated[str, Body()], request: Request) -> int:
    return await process(batcher, text, request)  # withdrawn if the client leaves
