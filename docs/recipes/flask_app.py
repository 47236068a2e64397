"""A batcher in Flask, whose server has a thread for each request: waitress-serve --threads=64 flask_app:app

Or: gunicorn --threads 64 flask_app:app. Each process has its own batcher and its own batches.
"""

from flask import Flask, Response, jsonify, request

from batchers import DeadlineExceededError, QueueFullError, create_batcher


def lengths(batch: list[str]) -> list[int]:
    return [len(text) for text in batch]


batcher = create_batcher("threading", lengths, max_batch_size=64, max_queue_size=1000, timeout=2.0)
app = Flask(__name__)


@app.errorhandler(QueueFullError)
def full(error: QueueFullError) -> tuple[Response, int, dict[str, str]]:
    return jsonify(error="too many requests wait"), 503, {"Retry-After": str(1 + int(error.retry_after))}


@app.errorhandler(DeadlineExceededError)
def late(_: DeadlineExceededError) -> tuple[Response, int]:
    return jsonify(error="no answer in time"), 504


@app.post("/length")
def length() -> Response:
    return jsonify(batcher.call(str(request.get_json())))


@app.get("/stats")
def stats() -> Response:
    return jsonify(completed=batcher.stats().completed, batches=batcher.stats().batches)
