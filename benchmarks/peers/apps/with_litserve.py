"""LitServe."""

from __future__ import annotations

import sys

import litserve

from . import MOST, model, values


class Predictions(litserve.LitAPI):  # type: ignore[misc]
    """The model in batches."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe passes it
        """Load the model, in the process of the worker."""
        self.predictor = model()

    def decode_request(self, request: list[float]) -> list[float]:
        """Take a row as it comes."""
        return request

    def batch(self, inputs: list[list[float]]) -> list[list[float]]:
        """Leave rows as they are."""
        return inputs

    def predict(self, x: list[list[float]]) -> list[float]:
        """Call the model."""
        return values(self.predictor, x)

    def unbatch(self, output: list[float]) -> list[float]:
        """Leave predictions as they are."""
        return output

    def encode_response(self, output: float) -> float:
        """Answer a number."""
        return output


if __name__ == "__main__":
    # With a window of 0 its worker never sleeps, and takes a core from the server and the client.
    api = Predictions(max_batch_size=MOST, batch_timeout=0.001)
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
