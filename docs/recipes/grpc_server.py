"""A batcher behind gRPC; its messages are bytes, so it needs no generated code: python grpc_server.py 50051"""

import asyncio
import sys

import grpc

from batchers import Batcher, DeadlineExceededError, QueueFullError, create_batcher


def lengths(batch: list[bytes]) -> list[bytes]:
    return [str(len(text)).encode() for text in batch]


def handlers(batcher: Batcher[bytes, bytes]) -> grpc.GenericRpcHandler:
    async def length(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            # gRPC cancels the call of a client that has left, and so withdraws the item.
            return await batcher.process(request, timeout=context.time_remaining())
        except QueueFullError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except DeadlineExceededError as error:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))

    return grpc.method_handlers_generic_handler("Texts", {"Length": grpc.unary_unary_rpc_method_handler(length)})


async def main(port: int) -> None:
    async with create_batcher("asyncio", lengths, max_batch_size=64, max_queue_size=1000) as batcher:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(batcher),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
