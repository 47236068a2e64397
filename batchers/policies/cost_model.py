"""Pure: how long a batch takes, learned from the batches before it.

tau(n) = a + b * n seconds for n items: a is what every call costs, b what each item adds. Most models are like
that up to their limit (Inoue 2021, "Queueing analysis of GPU-based inference servers with dynamic batching",
shows fits for two GPUs with R squared above 0.999).
"""

from __future__ import annotations

from math import sqrt

KEPT = 0.98
"""What a batch leaves of the weight of those before it: about the last fifty count."""

SKIPPED = 2
"""Batches at the start that say little: caches are cold, memory is allocated, functions are compiled."""

SPREAD = 0.25
"""Sizes whose variance is below this (items squared) do not tell a slope from an offset."""

SHIFT_BATCHES, SHIFT_SIGMAS = 5, 3.0
"""So many batches in a row, all so far off on one side, and the model is another one: it starts afresh."""

QUANTILE = 0.95


class CostModel:
    """Exponentially weighted least squares of batch times on batch sizes."""

    __slots__ = ("_late", "_n", "_nn", "_nt", "_off", "_seen", "_t", "_variance", "_weight", "a", "b")

    def __init__(self) -> None:
        """Start without any idea: every prediction is 0."""
        self.a = self.b = 0.0
        self._late = 0.0  # the quantile of the errors, in standard deviations: it shrinks with the noise
        self._seen = 0
        self._off = 0  # batches in a row that were far off: negative, too fast
        self._variance = 0.0
        self._weight = self._n = self._t = self._nn = self._nt = 0.0

    @property
    def known(self) -> bool:
        """Whether any batch has counted."""
        return self._weight > 0

    def predict(self, size: float) -> float:
        """Return the seconds that a batch of so many items takes."""
        return self.a + self.b * size

    @property
    def margin(self) -> float:
        """Seconds by which 19 of 20 batches are later than predicted, at most."""
        return self._late * sqrt(self._variance)

    def observe(self, size: int, seconds: float) -> None:
        """Learn from a batch that has ended."""
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
        if variance > SPREAD:  # else the sizes do not say how the time depends on them: the slope stays
            self.b = max((self._nt / self._weight - mean_n * mean_t) / variance, 0.0)
        self.b = min(self.b, mean_t / mean_n)
        self.a = mean_t - self.b * mean_n

    def _judge(self, error: float) -> None:
        """Learn from how far the prediction was off; forget all after a shift of the level."""
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
        # Robbins and Monro: up by 19 parts where the error was above, down by 1 where it was below.
        step = 2 * share * (QUANTILE if error > self.margin else QUANTILE - 1)
        self._late = min(max(self._late + step, 0.0), SHIFT_SIGMAS)
