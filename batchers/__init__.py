"""Collects concurrent calls into one batch call and gives each caller its own answer.

Two complete backends behind one interface, `Batcher`: `ThreadingBatcher` and `AsyncioBatcher`.
"""

from .backends import BACKENDS, AsyncioBatcher, ThreadingBatcher
from .batcher import Batcher
from .core.decisions import Dispatch
from .decorator import Batched, batched, create_batcher
from .errors import (
    BatcherError,
    BatcherStoppedError,
    BatcherUnavailableError,
    BatchFunctionError,
    BatchResultError,
    BatchTimeoutError,
    DeadlineExceededError,
    ItemCostError,
    OptionError,
    QueueFullError,
    ReentrantCallError,
    RemoteError,
    RowError,
)
from .options import BatcherOptions, Options
from .policies.adaptive import Adaptive
from .policies.base import Policy
from .policies.greedy import Greedy
from .policies.window import Window
from .rows import Rows
from .stats import BatcherStats, HistogramSnapshot

__version__ = "0.3.0"

__all__ = [
    "BACKENDS",
    "Adaptive",
    "AsyncioBatcher",
    "BatchFunctionError",
    "BatchResultError",
    "BatchTimeoutError",
    "Batched",
    "Batcher",
    "BatcherError",
    "BatcherOptions",
    "BatcherStats",
    "BatcherStoppedError",
    "BatcherUnavailableError",
    "DeadlineExceededError",
    "Dispatch",
    "Greedy",
    "HistogramSnapshot",
    "ItemCostError",
    "OptionError",
    "Options",
    "Policy",
    "QueueFullError",
    "ReentrantCallError",
    "RemoteError",
    "RowError",
    "Rows",
    "ThreadingBatcher",
    "Window",
    "batched",
    "create_batcher",
]
