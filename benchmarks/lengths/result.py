"""What is asked of a measurement with texts of different lengths, and what comes out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

ONE_BY_ONE = "one by one"
IN_ORDER = "in order"
CLAIRVOYANT = "clairvoyant"
OURS = ("threading", "asyncio")
CLOSED = (ONE_BY_ONE, IN_ORDER, *OURS, CLAIRVOYANT)
OPEN = (ONE_BY_ONE, *OURS, CLAIRVOYANT)
"""In order does not keep up with any such rate."""


class Texts(BaseModel):
    """How long each rule is measured, and how often, in turns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int
    closed_seconds: float
    open_seconds: float
    clients: int = 32
    share: float = 0.8
    """Of the texts a second that the clairvoyant reaches in the closed loop: the rate of the open one."""
    seed: int = 1

    @property
    def seconds(self) -> float:
        """Return the seconds of all, for the estimate."""
        return self.rounds * (len(CLOSED) * self.closed_seconds + len(OPEN) * self.open_seconds) * 1.4 + 40


FULL = Texts(rounds=2, closed_seconds=20, open_seconds=30)
QUICK = Texts(rounds=1, closed_seconds=4, open_seconds=4)


class Open(BaseModel):
    """One rule in one round of the open loop: seconds from the arrival to the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    p99: float
    left: float
    """The share of the texts that were still without an answer at the end."""


class TextsResult(BaseModel):
    """All rules, one figure for each round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: Texts
    packages: dict[str, str]
    """Versions of torch and sentence-transformers."""
    line: tuple[float, float, float]
    """Seconds a, c, b of a batch: a + c * n + b * n * longest, fitted to the model alone; words."""
    closed: dict[str, list[float]]
    """Texts a second."""
    rate: float
    """Texts a second that arrive in the open loop."""
    open: dict[str, list[Open]]
    padding: dict[str, list[float]]
    """The share of padding in the closed loop, as `stats().padding` has it."""
