"""Pure: a model of the service time of a batch, learned from earlier batches.

The service time of n items is tau(n) = a + b * n seconds: a is the cost of every call, and b the additional cost
of each item. Most models behave like that up to their limit. Inoue 2021, "Queueing analysis of GPU-based inference
servers with dynamic batching", shows fits for two GPUs with R squared above 0.999.
"""

from __future__ import annotations

from math import sqrt

KEPT = 0.98
"""The factor by which each batch reduces the weight of earlier ones: about the last fifty count."""

SKIPPED = 2
"""Batches at the start that are ignored: caches are cold, memory is allocated, functions are compiled."""

SPREAD = 0.25
"""The variance of sizes (items squared) above which the sizes separate the slope from the offset."""

SHIFT_BATCHES, SHIFT_SIGMAS = 5, 3.0
"""The model starts again after this many batches in a row with errors of one sign above this many sigmas."""

QUANTILE = 0.95
"""The share of batches that end within the predicted time plus the margin."""


class CostModel:
    """An exponentially weighted least-squares fit of service time to batch size.

    a
        Seconds that every batch takes; 0 before any observation.
    b
        Seconds that each item adds, never negative; 0 before any observation.
    """

    __slots__ = ("_late", "_n", "_nn", "_nt", "_off", "_seen", "_t", "_variance", "_weight", "a", "b")

    def __init__(self) -> None:
        """Initialise without observations, so that every prediction is 0."""
        self.a = self.b = 0.0
        self._late = 0.0  # the error quantile in standard deviations, so that it shrinks with the noise
        self._seen = 0
        self._off = 0  # batches in a row far off the prediction; negative: faster
        self._variance = 0.0
        self._weight = self._n = self._t = self._nn = self._nt = 0.0

    @property
    def known(self) -> bool:
        """Whether any batch has been counted; the first `SKIPPED` batches are not."""
        return self._weight > 0

    def predict(self, size: float) -> float:
        """Return the predicted seconds for a batch of `size` items; 0 before any observation."""
        return self.a + self.b * size

    @property
    def margin(self) -> float:
        """Seconds after the predicted end by which 19 of 20 batches have ended."""
        return self._late * sqrt(self._variance)

    def observe(self, size: int, seconds: float) -> None:
        """Learn from a batch of `size` items that took `seconds` seconds."""
        self._seen += 1
        if self._seen <= SKIPPED:
            return
        if self.known:
            self._judge(seconds - self.predict(size))
        self._weight = KEPT * self._weight + 1
        self._n = KEPT * self._n + size
        self._t = KEPT * self._t + seconds
        self._nn = KEPT * self._nn + size * size
        self._nt = KEPT * self._nt + size * seconds
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        if variance > SPREAD:  # else the sizes are too alike to give a slope: keep the last one
            self.b = max((self._nt / self._weight - mean_n * mean_t) / variance, 0.0)
        self.b = min(self.b, mean_t / mean_n)
        self.a = mean_t - self.b * mean_n

    def _judge(self, error: float) -> None:
        """Learn from the error of a prediction, in seconds; drop all sums after a shift of the level.

        The slope `b` stays after a shift until the sizes vary enough for a new one.
        """
        sigma = sqrt(self._variance)
        if self._seen > SKIPPED + SHIFT_BATCHES and abs(error) > SHIFT_SIGMAS * sigma:
            self._off = max(self._off, 0) + 1 if error > 0 else min(self._off, 0) - 1
        else:
            self._off = 0
        if abs(self._off) >= SHIFT_BATCHES:
            self._weight = self._n = self._t = self._nn = self._nt = 0.0
            self._variance = self._late = 0.0
            self._seen = SKIPPED + 1
            return
        share = 1 - KEPT
        self._variance += share * (min(error * error, 25 * self._variance or error * error) - self._variance)
        # Robbins and Monro: up by 19 parts if the error was above the margin, down by 1 part if it was below.
        step = 2 * share * (QUANTILE if error > self.margin else QUANTILE - 1)
        self._late = min(max(self._late + step, 0.0), SHIFT_SIGMAS)
