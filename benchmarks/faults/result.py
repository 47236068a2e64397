"""One fault on one subject, and what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Subject = Literal["threading", "asyncio", "async-batcher", "batched"]
OURS: tuple[Subject, ...] = ("threading", "asyncio")
PEERS: tuple[Subject, ...] = ("async-batcher", "batched")
SUBJECTS: tuple[Subject, ...] = (*OURS, *PEERS)


class Fault(BaseModel):
    """What is done to whom, and how much of it: calls, items, stops, seconds, bodies or rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str
    subject: Subject
    size: int
    seed: int = 1


class FaultResult(BaseModel):
    """What came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: Fault
    figures: dict[str, float]
    """Each with its words, which say the unit."""
    failed: str = ""
    """Why there is nothing, if there is nothing."""
