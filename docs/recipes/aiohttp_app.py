"""A batcher in aiohttp: python aiohttp_app.py 8000"""

import sys
from collections.abc import AsyncIterator

from aiohttp import web

from batchers import Batcher, DeadlineExceededError, QueueFullError, create_batcher


def lengths(batch: list[str]) -> list[int]:
    return [len(text) for text in batch]


BATCHER = web.AppKey("batcher", Batcher)


async def with_batcher(app: web.Application) -> AsyncIterator[None]:
    async with create_batcher("asyncio", lengths, max_batch_size=64, max_queue_size=1000) as app[BATCHER]:
        yield


async def length(request: web.Request) -> web.Response:
    try:
        # aiohttp cancels a handler whose client has left (handler_cancellation), and so withdraws the item.
        return web.json_response(await request.app[BATCHER].process(await request.json(), timeout=2.0))
    except QueueFullError as error:
        raise web.HTTPServiceUnavailable(headers={"Retry-After": str(1 + int(error.retry_after))}) from None
    except DeadlineExceededError:
        raise web.HTTPGatewayTimeout from None


app = web.Application()
app.cleanup_ctx.append(with_batcher)
app.router.add_post("/length", length)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), handler_cancellation=True)
