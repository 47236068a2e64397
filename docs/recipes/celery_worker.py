"""A batcher in a Celery worker: celery -A celery_worker worker --pool threads --concurrency 64

Only a pool whose tasks share a process makes batches: `threads`. In `prefork` each process runs one task at a
time, and so does `solo`: every batch has one item. docs/using.md says what works with `gevent` and `eventlet`.
"""

import tempfile
from pathlib import Path

from celery import Celery

from batchers import create_batcher

folder = Path(tempfile.gettempdir()) / "celery-recipe"  # the file system as a broker: yours is another
results = folder / "results"
results.mkdir(parents=True, exist_ok=True)
app = Celery("recipe", broker="filesystem://", backend=results.as_uri())
app.conf.broker_transport_options = {"data_folder_in": str(folder), "data_folder_out": str(folder)}
app.conf.worker_prefetch_multiplier = 2  # so that tasks wait in the batcher, not in the broker


def lengths(batch: list[str]) -> list[list[int]]:
    return [[len(text), len(batch)] for text in batch]


batcher = create_batcher("threading", lengths, max_batch_size=64)  # its threads start with the first call


@app.task
def length(text: str) -> list[int]:
    return batcher.call(text)
