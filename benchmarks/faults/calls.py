"""Calls that are cancelled, fail, expire and are stopped at random: `python -m benchmarks.faults.calls FAULT`.

Lives of `CALLS` calls each, every one with a batcher of its own: random limits, a sync or an async batch function,
batches that raise, answer too little or raise StopIteration, items that fail alone, callers that leave, time
limits that are too short, and stops in the middle, by force or not. Threads call in a third of the lives of this
project's batchers. The seed and the number of a life decide about all of it, for all subjects alike, but the
moments at which threads run.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for_futures
from contextlib import suppress
from pathlib import Path
from typing import Any

from .lives import BatchFunction, Life, Limits, Ours, begin
from .result import OURS, Fault, FaultResult, Subject

CALLS = 500
"""In one life."""

PATIENCE = 0.5
"""Seconds after all others for a call of a peer to end; batches take less than a millisecond."""
OUR_PATIENCE = 20.0
"""The same for this project's: a machine that is busy must not look like a call that hangs."""

CALLERS = 8
"""Threads, in a life with threads."""


class Item:
    """The item of one call; its outcome is decided beforehand."""

    __slots__ = ("blamed", "deed", "deep", "left", "limited", "number", "runs")

    def __init__(self, number: int, deed: str) -> None:
        """Not run yet."""
        self.number = number
        self.deed = deed
        self.runs = 0
        self.blamed = False
        """Whether it was in a batch that failed, or failed alone."""
        self.left = False
        """Whether its caller was told to leave."""
        self.limited = False
        """Whether it has a time limit."""
        self.deep = False
        """Whether its caller was near the limit of recursion."""


DEEDS = (("none", 950), ("fails", 30), ("raises", 8), ("short", 6), ("stops-iteration", 6))


def answers_to(items: list[Item], ignored: AbstractSet[str] = frozenset()) -> list[Any]:
    """Return the answers of a batch, or fail as its items say, but for deeds that are ignored here."""
    for item in items:
        item.runs += 1
        item.blamed = item.blamed or item.deed == "fails"
    kinds = {item.deed for item in items} - ignored
    found: list[Any] = [ValueError() if item.deed == "fails" else -item.number for item in items]
    if kinds <= {"none", "fails"}:
        return found
    for item in items:
        item.blamed = True
    if "raises" in kinds:
        raise RuntimeError
    if "short" in kinds:
        return found[:-1]
    raise StopIteration


NO_CAUSE = "ended without a cause"


def sort(item: Item, answer: object, error: BaseException | None, *, stopped: bool) -> str:
    """Return the kind of an outcome, which has to have a cause. `stopped`: whether the batcher was."""
    if item.runs > 1:
        return "run twice"
    if error is None:
        # A library without errors of single items hands its caller the error that was meant for it.
        its_own = item.deed == "fails" and type(answer) is ValueError
        return "failed" if its_own else "answered" if answer == -item.number else "wrong answers"
    if isinstance(error, asyncio.CancelledError | CancelledError):
        return "cancelled" if item.left else NO_CAUSE
    if isinstance(error, TimeoutError):
        return "expired" if item.limited else NO_CAUSE
    return sort_refusal(item, type(error).__name__, stopped=stopped)


def sort_refusal(item: Item, error: str, *, stopped: bool) -> str:
    """Return the kind of an error by its name: peers have their own, and for one a stop is a RuntimeError."""
    if error == "RecursionError" and item.deep:
        return "failed"
    full = error in {"QueueFullError", "QueueFullException"}
    if full or error == "BatcherStoppedError" or (error == "RuntimeError" and not item.runs):
        if not (full or stopped):
            return NO_CAUSE
        return "refused, but run" if item.runs else "refused or stopped"
    return "failed" if item.blamed else "failed with others"


class Quiet:
    """A life without more trouble than the deeds of its items."""

    deeds: Sequence[tuple[str, int]] = DEEDS

    def __init__(self, chance: random.Random, found: Counter[str]) -> None:
        """Take the chance of the life, and where its outcomes are counted."""
        self.chance = chance
        self.found = found

    def begin(self, subject: Subject, function: BatchFunction, limits: Limits) -> Life:
        """Make the batcher."""
        return begin(subject, function, limits)

    def item(self, chance: random.Random, deed: str) -> Item:
        """Make an item."""
        return Item(chance.getrandbits(60), deed)

    def answers_to(self, items: list[Item]) -> list[Any]:
        """Return the answers of a batch, or fail."""
        return answers_to(items)

    async def call(self, life: Life, item: Item, timeout: float | None) -> Any:  # noqa: ANN401 - of the caller's kind
        """Call from a coroutine."""
        return await life.call(item, timeout)

    def submit(self, life: Ours, item: Item, timeout: float | None) -> Future[Any]:
        """Call from a thread."""
        return life.batcher.submit(item, timeout=timeout)

    def sort(self, item: Item, answer: object, error: BaseException | None, *, stopped: bool) -> str:
        """Return the kind of an outcome."""
        return sort(item, answer, error, stopped=stopped)

    async def end(self, patience: float) -> None:
        """See to what the trouble has left."""


async def live(fault: Fault, chance: random.Random, found: Counter[str], kind: type[Quiet] = Quiet) -> None:
    """Play one life and count what came of its calls."""
    trouble = kind(chance, found)
    turns = chance.choice([0, 0, 1, 3])
    limits = Limits(chance.randint(1, 16), chance.choice([50, 1000, 1000, 1000]), chance.randint(1, 4))

    async def coroutine(batch: list[Item]) -> list[Any]:
        for _ in range(turns):
            await asyncio.sleep(0)
        return trouble.answers_to(batch)

    function: Callable[[list[Item]], Any] = coroutine if chance.random() < 0.5 else trouble.answers_to
    life = trouble.begin(fault.subject, function, limits)
    stop_at = chance.randrange(CALLS) if chance.random() < 0.3 else CALLS
    force = chance.random() < 0.5
    by_threads, seed = chance.random() < 1 / 3, chance.random()
    if isinstance(life, Ours) and by_threads:
        await asyncio.to_thread(call_from_threads, trouble, life, seed, stop_at, force)
    else:
        await call_from_tasks(trouble, life, stop_at, force)
    await trouble.end(patience_of(fault.subject))
    with suppress(TimeoutError, asyncio.CancelledError):
        await life.stop(force=False)
    found["counters that do not add up"] += bool(life.books())
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=patience_of(fault.subject))
    for task in left:
        if not task.done():
            found["tasks left"] += 1
            task.cancel()
    if left:
        await asyncio.wait(left, timeout=PATIENCE)


def plan(chance: random.Random, trouble: Quiet) -> tuple[Item, float | None, int | None]:
    """Return an item, its time limit and the turns after which its caller leaves."""
    (deed,) = chance.choices([name for name, _ in trouble.deeds], [weight for _, weight in trouble.deeds])
    timeout = chance.uniform(0, 0.003) if chance.random() < 0.1 else None
    leaves = chance.randrange(6) if chance.random() < 0.15 else None
    item = trouble.item(chance, deed)
    item.limited = timeout is not None
    return item, timeout, leaves


async def call_from_tasks(trouble: Quiet, life: Life, stop_at: int, force: bool) -> None:
    """Call from coroutines of this loop."""
    chance, found = trouble.chance, trouble.found

    async def call(item: Item, timeout: float | None) -> None:
        answer, error = None, None
        try:
            answer = await trouble.call(life, item, timeout)
        except (Exception, asyncio.CancelledError) as caught:  # noqa: BLE001 - whatever it is, it is counted
            error = caught
        outcomes.append(trouble.sort(item, answer, error, stopped=stopping is not None))
        del answer, error

    outcomes: list[str] = []
    tasks: list[asyncio.Task[None]] = []
    leaving: list[tuple[int, asyncio.Task[None], Item]] = []
    stopping: asyncio.Task[None] | None = None
    turn = 0
    while len(tasks) < CALLS:
        for _ in range(chance.choice([1, 1, 4, 40])):
            item, timeout, leaves = plan(chance, trouble)
            tasks.append(asyncio.create_task(call(item, timeout)))
            if leaves is not None:
                leaving.append((turn + leaves, tasks[-1], item))
            if len(tasks) == stop_at:
                stopping = asyncio.create_task(life.stop(force=force))
        await asyncio.sleep(0)
        turn += 1
        for due, task, item in leaving:
            if due <= turn:
                item.left = True
                task.cancel()
        leaving = [each for each in leaving if each[0] > turn]
    for _, task, item in leaving:
        item.left = True
        task.cancel()
    del leaving
    _, hanging = await asyncio.wait(tasks, timeout=OUR_PATIENCE if isinstance(life, Ours) else PATIENCE)
    found["calls"] += len(tasks)
    found.update(outcomes)
    found["no outcome"] += len(hanging)
    for task in hanging:
        task.cancel()
    if hanging:
        await asyncio.wait(hanging)
    if stopping is not None:
        await asyncio.wait([stopping], timeout=PATIENCE)
        if stopping.done() and not stopping.cancelled():
            stopping.exception()


def call_from_threads(trouble: Quiet, life: Ours, seed: float, stop_at: int, force: bool) -> None:
    """Call from threads: each submits its share, and cancels some; and waits for all of them."""
    counts: list[Counter[str]] = [Counter() for _ in range(CALLERS)]
    submitted = threading.Semaphore(0)
    stops = stop_at < CALLS // CALLERS * CALLERS

    def caller(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        mine: list[tuple[Item, Future[Any]]] = []
        for _ in range(CALLS // CALLERS):
            item, timeout, leaves = plan(chance, trouble)
            counts[number]["calls"] += 1
            submitted.release()
            try:
                future = trouble.submit(life, item, timeout)
            except Exception as error:  # noqa: BLE001 - as above
                counts[number][trouble.sort(item, None, error, stopped=stops)] += 1
                continue
            mine.append((item, future))
            if leaves is not None and mine:
                leaver, its_future = chance.choice(mine[-8:])
                leaver.left = True
                its_future.cancel()
        wait_for_futures([future for _, future in mine], OUR_PATIENCE)
        for item, future in mine:
            if not future.done():
                counts[number]["no outcome"] += 1
            elif future.cancelled():
                counts[number][trouble.sort(item, None, CancelledError(), stopped=stops)] += 1
            else:
                failure = future.exception()
                answer = None if failure else future.result()
                counts[number][trouble.sort(item, answer, failure, stopped=stops)] += 1

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    if stops:
        for _ in range(stop_at):
            submitted.acquire()
        life.batcher.close(force)
    for thread in threads:
        thread.join()
    for each in counts:
        trouble.found.update(each)


ORDER = (
    *("calls", "answered", "failed", "cancelled", "expired", "refused or stopped"),
    *("no outcome", NO_CAUSE, "wrong answers", "failed with others", "run twice", "refused, but run"),
    *(
        "counters that do not add up",
        "unexpected errors logged",
        "tasks left",
        "threads left",
        "descriptors left",
        "items left",
    ),
)
COUNTED_BY_US = ("counters that do not add up", "unexpected errors logged")
"""Peers keep no books, and log what batches raise."""


def patience_of(subject: Subject) -> float:
    """Return the seconds that something has to end."""
    return OUR_PATIENCE if subject in OURS else PATIENCE


class Heard(logging.Handler):
    """Counts what is logged as an error: a second outcome, or a defect, would be.

    The failed batches, and what ends workers from outside, are not counted: these lives contain them.
    """

    EXPECTED = (
        *("A batch of %d of %s failed", "A worker", "A task has raised what would end a program"),
        *("A callback of a future has raised", "exception calling callback", "Exception in callback"),
    )

    def __init__(self, found: Counter[str]) -> None:
        """Hear errors only."""
        super().__init__(logging.ERROR)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        if not str(record.msg).startswith(self.EXPECTED):
            self._found["unexpected errors logged"] += 1


def run(fault: Fault, kind: type[Quiet] = Quiet) -> FaultResult:
    """Play so many calls."""
    found: Counter[str] = Counter()
    logging.getLogger().handlers = [Heard(found)]  # the loop's own handler logs, too

    async def all_lives() -> None:
        number = 0
        while found["calls"] < fault.size:
            await live(fault, random.Random(f"{fault.seed} {number}"), found, kind)
            number += 1

    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    threads = set(threading.enumerate())
    asyncio.run(all_lives())
    end = time.monotonic() + patience_of(fault.subject)
    while set(threading.enumerate()) - threads and time.monotonic() < end:
        time.sleep(0.01)
    gc.collect()
    found["threads left"] = len(set(threading.enumerate()) - threads)
    found["descriptors left"] = max(len(list(Path("/proc/self/fd").iterdir())) - descriptors, 0)
    found["items left"] = sum(issubclass(type(each), Item) for each in gc.get_objects())
    order = [name for name in ORDER if fault.subject in OURS or name not in COUNTED_BY_US]
    return FaultResult(fault=fault, figures={name: found[name] for name in order})


if __name__ == "__main__":
    print(run(Fault.model_validate_json(sys.argv[1])).model_dump_json())  # noqa: T201 - its result
