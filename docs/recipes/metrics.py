"""The metrics of several batchers of one program, for Prometheus: python metrics.py 9100"""

import sys
import threading

from prometheus_client import REGISTRY, start_http_server

from batchers import create_batcher
from batchers.integrations.prometheus import BatcherCollector


def lengths(batch: list[str]) -> list[int]:
    return [len(text) for text in batch]


def squares(batch: list[int]) -> list[int]:
    return [number * number for number in batch]


texts = create_batcher("threading", lengths, name="texts")
numbers = create_batcher("threading", squares, name="numbers")
REGISTRY.register(BatcherCollector(texts, numbers))  # batcher_items_total{batcher="texts",...}

if __name__ == "__main__":
    start_http_server(int(sys.argv[1]), "127.0.0.1")
    print(texts.call("abc"), numbers.call(3), flush=True)
    threading.Event().wait()
