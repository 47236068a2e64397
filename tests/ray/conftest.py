"""Ray has threads and descriptors of its own, which stay as long as it runs."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Look at nothing: in the place of the fixture of all other tests."""
