"""How much is measured."""

from __future__ import annotations

from typing import Literal

Scale = Literal["quick", "full"]
"""All of it, or what takes less than ten minutes."""
