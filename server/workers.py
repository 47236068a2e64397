"""The example for several front ends: `make serve WORKERS=4`.

`BATCHER_MODEL=server.workers:ExampleModel python -m batchers.serving --workers 4 --path /optimized_predict`
"""

from __future__ import annotations

from .model import DiabetesModel
from .settings import Settings


class ExampleModel(DiabetesModel):
    """The model that the environment names: MODEL_FILE and MODEL_CALL."""

    def __init__(self) -> None:
        """Initialise the model; nothing is loaded."""
        settings = Settings()
        super().__init__(settings.model_file, settings.model_call, settings.description)
