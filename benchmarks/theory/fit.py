"""How long batches took, as a line: tau(n) = a + b * n seconds, from a run's own log."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import BaseModel, ConfigDict

VARIED = 0.25
"""Items squared: sizes that vary less do not tell a slope."""


class Fit(BaseModel):
    """A line in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: float
    b: float
    batches: int


def fit(log: Iterable[tuple[int, float | None]]) -> Fit:
    """Return the least-squares line for batches (items, seconds); those without seconds still run.

    ValueError when there is none.
    """
    ended = [(items, seconds) for items, seconds in log if seconds is not None]
    if not ended:
        msg = "no batch has ended"
        raise ValueError(msg)
    sizes, seconds = np.array(ended, np.float64).T
    b = 0.0
    if sizes.var() > VARIED:
        b = max(float(np.cov(sizes, seconds, bias=True)[0, 1] / sizes.var()), 0.0)
    return Fit(a=float(seconds.mean() - b * sizes.mean()), b=b, batches=len(ended))
