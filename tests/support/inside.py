"""What tests see of a batcher that users do not: its driver."""

from __future__ import annotations

from typing import Any, cast

from batchers import Batcher
from batchers.drivers.asyncio_driver import AsyncioDriver
from batchers.drivers.driver import Driver
from batchers.drivers.threading_driver import ThreadingDriver


def driver_of(batcher: Batcher[Any, Any]) -> Driver[Any, Any]:
    """Return the driver of a batcher."""
    return cast("Driver[Any, Any]", vars(batcher)["_Batcher__batchers_driver"])


def threading_driver_of(batcher: Batcher[Any, Any]) -> ThreadingDriver[Any, Any]:
    """Return the driver of a ThreadingBatcher."""
    driver = driver_of(batcher)
    assert isinstance(driver, ThreadingDriver)
    return driver


def asyncio_driver_of(batcher: Batcher[Any, Any]) -> AsyncioDriver[Any, Any]:
    """Return the driver of an AsyncioBatcher."""
    driver = driver_of(batcher)
    assert isinstance(driver, AsyncioDriver)
    return driver
