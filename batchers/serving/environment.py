"""`batchers.serving:app`: the model and the settings that the environment names."""

from __future__ import annotations

from .application import create_app
from .endpoints import ServedApp
from .models import Model, load_model
from .payloads import ModelError
from .settings import ModelSettings, cannot_start, read_settings


def models_of_environment() -> tuple[Model, ModelSettings]:
    """Return the model and its settings; if there is none, end the program with one line."""
    settings = read_settings(ModelSettings)
    try:
        return Model(load_model(settings.model)), settings
    except ModelError as error:
        cannot_start(f"BATCHER_MODEL={settings.model}: {error}")


def app_of_environment() -> ServedApp:
    """Return the application; if it cannot be made, end the program with one line."""
    settings = read_settings(ModelSettings)
    try:
        return create_app(load_model(settings.model), settings)
    except ModelError as error:
        cannot_start(f"BATCHER_MODEL={settings.model}: {error}")
