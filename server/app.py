"""The app: `BATCHER_BACKEND=threading|asyncio uvicorn server.app:app`."""

from __future__ import annotations

from batchers import __version__
from batchers.serving import ServedApp, create_app

from .model import FEATURES, DiabetesModel
from .settings import Settings, read_settings

DESCRIPTION = f"""Two ways to the same prediction: `/predict` calls the model for one request alone, and
`/optimized_predict` puts concurrent requests into one batch. Both take a JSON array of {FEATURES} finite
numbers and answer a JSON number. The order of the numbers: """


def make_app(settings: Settings) -> ServedApp:
    """Return the app for these settings."""
    model = DiabetesModel(settings.model_file, settings.model_call, settings.description)
    return create_app(
        model,
        settings,
        path="/optimized_predict",
        alone="/predict",
        about={"model_call": settings.model_call},
        description=DESCRIPTION + ", ".join(settings.description.features),
        version=__version__,
    )


app = make_app(read_settings())
