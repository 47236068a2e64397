"""mosec. It takes its options from the command line itself: `--port N --address 127.0.0.1`; PROCESSES is ours."""

from __future__ import annotations

import os

from mosec import Server, Worker

from . import MOST, model, values


class Predictions(Worker):  # type: ignore[misc]
    """The model in batches."""

    def __init__(self) -> None:
        """Load the model, in the process of the worker."""
        self.predictor = model()

    def forward(self, data: list[list[float]]) -> list[float]:
        """Call the model."""
        return values(self.predictor, data)


if __name__ == "__main__":
    server = Server()
    # One millisecond is its shortest window.
    processes = int(os.environ["PROCESSES"])
    server.append_worker(Predictions, num=processes, max_batch_size=MOST, max_wait_time=1)
    server.run()
