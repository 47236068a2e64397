"""BentoML: `bentoml serve benchmarks.peers.apps.with_bentoml:Predictions`. A request brings a list of one row."""

from __future__ import annotations

import bentoml

from . import MOST, model, values


@bentoml.service(
    workers=1, traffic={"timeout": 60, "max_concurrency": 4096}, logging={"access": {"enabled": False}}
)
class Predictions:
    """The model in batches."""

    def __init__(self) -> None:
        """Load the model, in the process of the worker."""
        self.predictor = model()

    @bentoml.api(batchable=True, max_batch_size=MOST)  # type: ignore[untyped-decorator]
    def predict(self, rows: list[list[float]]) -> list[float]:
        """Call the model."""
        return values(self.predictor, rows)
