"""Batch functions of the tests."""

from __future__ import annotations

from typing import Any


def echo(items: list[Any]) -> list[Any]:
    """Return the items."""
    return items


def plus_one(items: list[Any]) -> list[Any]:
    """Return each item and one."""
    return [item + 1 for item in items]
