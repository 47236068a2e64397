"""Long random lives of the core, with any limits: what the exhaustive test is too shallow for."""

from __future__ import annotations

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from .plain import Limits
from .world import World


class CoreMachine(RuleBasedStateMachine):
    """The core beside the plain model, which compare themselves after each step."""

    world: World
    steps: int

    @initialize(
        batch=st.integers(1, 5),
        slots=st.integers(1, 3),
        queue=st.integers(1, 40),
        window=st.sampled_from([None, 0.0, 1.0, 3.0]),
        cost=st.sampled_from([inf, 3.0, 7.0]),
        bisect=st.booleans(),
    )
    def start(  # noqa: PLR0917 - Hypothesis passes them by name
        self, batch: int, slots: int, queue: int, window: float | None, cost: float, bisect: bool
    ) -> None:
        self.world = World(Limits(batch, slots, queue, window, cost, bisect))
        self.steps = 0

    @rule(
        times=st.integers(1, 20),
        group=st.sampled_from("abc"),
        priority=st.integers(-1, 2),
        cost=st.sampled_from([0.0, 1.0, 3.0]),
        timeout=st.sampled_from([inf, inf, 0, 1, 2, 5]),
    )
    def offer(self, times: int, group: str, priority: int, cost: float, timeout: float) -> None:
        for _ in range(times):
            self.world.offer(group, priority, cost, timeout)

    @rule(where=st.floats(0, 1, exclude_max=True), times=st.integers(1, 20))
    def withdraw(self, where: float, times: int) -> None:
        for _ in range(times):
            self.world.withdraw_waiting(int(where * len(self.world.plain.waiting)))

    @rule()
    def withdraw_running(self) -> None:
        self.world.withdraw_running()

    @rule(place=st.sampled_from([0, -1]), ok=st.booleans())
    def finish(self, place: int, ok: bool) -> None:
        self.world.finish(place, ok)

    @rule()
    def tick(self) -> None:
        self.world.tick()

    @rule(
        batch=st.integers(1, 5),
        slots=st.integers(1, 3),
        queue=st.integers(1, 40),
        window=st.sampled_from([None, 0.0, 1.0, 3.0]),
    )
    def reconfigure(self, batch: int, slots: int, queue: int, window: float | None) -> None:
        self.world.reconfigure(batch, slots, queue, window)

    # Rarely: after a close nothing new can happen.
    @precondition(lambda self: self.steps > 25)
    @rule(kind=st.sampled_from(["drain", "force", "abandon"]))
    def close(self, kind: str) -> None:
        self.world.close(force=kind != "drain", abandon=kind == "abandon")

    @invariant()
    def note_step(self) -> None:
        self.steps = getattr(self, "steps", 0) + 1

    def teardown(self) -> None:
        """Everything ends once everything is finished."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.close()
        while world.finish(0, ok=True):
            pass
        assert world.core.done
        assert set(world.outcomes) == set(world.requests)


CoreMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestCoreMachine = CoreMachine.TestCase
