"""Mutants that are equal in meaning to what they came from, and why: no test can tell them."""

from __future__ import annotations

import re
from typing import NamedTuple

from .mutants import Survivor


class Equal(NamedTuple):
    """A change that changes nothing."""

    function: str
    """With its module and class."""
    was: str
    """The part of the line that is changed."""
    became: str
    why: str
    lines: int = 1
    """Lines of the function with that part. A test holds it, so that an entry speaks of no other line."""


LEARNED_ANEW = "what is learned while nothing is held is forgotten when a trial begins"
NOT_READ = "read while a batch runs, and its start has set it"
NO_PLACE = "neither is a task or the number of a thread"
OVERWRITTEN = "the first batches that are judged set it before it is compared"
NOT_THERE = "to discard what is not there does nothing"
NEVER_OVER = "without a time nothing is over"
SPARES = "it only spares the computation of a time that is not earlier"
NOTHING_WAITS = "read while something waits, and its offer has set it"
NO_TRUTH = "only asked whether it is true, and None is not"
SLOW_WAY = "it only saves time: the other way does the same"
NO_DIFFERENCE = "with 0 both do the same"

EQUAL_ANYWHERE = (
    (re.compile(r"\bcast\([^,]+, "), "`cast` returns its second argument, whatever the first is"),
    (re.compile(r", (strict=\w+)?\)"), "both have the same length; `strict` only tells of a mistake"),
)
"""Parts of a line that mean nothing, whatever stands there."""

EQUAL = (
    Equal("policies.adaptive.AdaptiveRule.hold", "until > now and", "until > now or", SPARES),
    Equal("policies.adaptive.AdaptiveRule.hold", "until > now", "until >= now", SPARES),
    Equal("policies.adaptive.AdaptiveRule.hold", "deadline < inf", "deadline <= inf", SPARES),
    Equal(
        "core.state.State.__init__", "self._last_event_time = -inf", "self._last_event_time = None", NOTHING_WAITS
    ),
    Equal(
        "core.state.State.__init__", "self._last_event_time = -inf", "self._last_event_time = +inf", NOTHING_WAITS
    ),
    Equal(
        "core.machine.Core._start",
        "self._in_flight[batch] = None",
        'self._in_flight[batch] = ""',
        "nobody reads the value",
    ),
    Equal("core.machine.Core.finish", "request.deadline < inf", "request.deadline <= inf", NOT_THERE),
    Equal("core.state.State._remove", "request.deadline < inf", "request.deadline <= inf", NOT_THERE),
    Equal("core.machine.Core.decide", "_batch_timeout < inf", "_batch_timeout <= inf", NEVER_OVER),
    Equal("core.machine.Core.decide", "earliest < inf", "earliest <= inf", NEVER_OVER),
    Equal(
        "core.groups.Groups._new_queue",
        "self.changing = False",
        "self.changing = None",
        "a new queue needs a level, which sets it anew",
    ),
    Equal(
        "core.groups.Groups._new_queue",
        "self.changing = False",
        "self.changing = True",
        "a new queue needs a level, which sets it anew",
    ),
    Equal("core.groups.Groups.select", "<= now", "< now", "a time that is not -inf lies after now", lines=2),
    Equal(
        "policies.cohort.Cohort.__init__",
        "self._seen = 0",
        "self._seen = 1",
        "both means begin with 0; their quotient is the same",
    ),
    Equal("core.decisions.Batch.__init__", "self.where: object = None", 'self.where: object = ""', NO_PLACE),
    Equal("policies.cost_model.CostModel.__init__", "self._off = 0", "self._off = None", OVERWRITTEN),
    Equal("policies.cost_model.CostModel.__init__", "self._off = 0", "self._off = 1", OVERWRITTEN),
    Equal("policies.cost_model.CostModel._judge", "error > 0", "error >= 0", "what is far off is not 0"),
    Equal(
        "policies.cohort.Cohort.__init__",
        "span < max_hold",
        "span <= max_hold",
        "the longest span would be there twice",
    ),
    Equal("policies.cohort.Cohort.started", '"watching"', '"XXwatchingXX"', LEARNED_ANEW),
    Equal("policies.cohort.Cohort.started", '"watching"', '"WATCHING"', LEARNED_ANEW),
    Equal("policies.cohort.Cohort.finished", "self._held = False", "self._held = None", NO_TRUTH),
    Equal("policies.cohort.Cohort._judge", "failed=False", "failed=None", NO_TRUTH),
    Equal("policies.speed_up.SpeedUp.__init__", "self._trying = False", "self._trying = None", NO_TRUTH),
    Equal("policies.speed_up.SpeedUp.__init__", "self._kept = 0", "self._kept = None", NO_TRUTH),
    Equal(
        "policies.speed_up.SpeedUp.started",
        "self._running[other] = False",
        "self._running[other] = None",
        NO_TRUTH,
    ),
    Equal("core.machine.Core._give_up", "well=False", "well=None", NO_TRUTH),
    Equal(
        "core.machine.Core._give_up",
        "self._stalled[batch] = None",
        'self._stalled[batch] = ""',
        "nobody reads the value",
    ),
    Equal(
        "policies.adaptive.AdaptiveRule.__init__", "self._last_start = -inf", "self._last_start = None", NOT_READ
    ),
    Equal(
        "policies.adaptive.AdaptiveRule.__init__", "self._last_start = -inf", "self._last_start = +inf", NOT_READ
    ),
    Equal(
        "policies.adaptive.AdaptiveRule._apart",
        "accepted + 1",
        "accepted - 1",
        "the same time is computed again instead of kept",
    ),
    Equal(
        "policies.speed_up.SpeedUp.__init__",
        "self._last = 0.0",
        "self._last = 1.0",
        "time in which nothing runs counts for nothing",
    ),
    Equal(
        "policies.speed_up.SpeedUp.__init__",
        "self._patience = 0",
        "self._patience = 1",
        "a trial sets it before it is compared",
    ),
    Equal(
        "policies.speed_up.SpeedUp.__init__",
        "self._since_alone = 0",
        "self._since_alone = 1",
        "the first batch runs alone, which sets it",
    ),
    Equal("core.outcomes.judge", "type(result) is not list", "type(None) is not list", SLOW_WAY),
    Equal(
        "core.outcomes.judge",
        "_ORDINARY and any",
        "_ORDINARY or any",
        "values that are not special stay what they are",
    ),
    Equal("core.outcomes.judge", "kinds <= _ORDINARY", "kinds < _ORDINARY", "ordinary kinds are not special"),
    Equal("core.machine.Core.offer_one", "self._groups.queues.get(request.group)", "None", SLOW_WAY),
    Equal("policies.lengths.LengthModel._judge", "error > 0", "error >= 0", "what is far off is not 0"),
    Equal("policies.lengths.LengthModel._solve", "moments[0:3]", "moments[0:4]", "the fourth is not read"),
    Equal(
        "policies.lengths.LengthModel._solve",
        "= []",
        "= None",
        "the loop sets it, or nothing is free, and it is not read",
    ),
    Equal(
        "policies.lengths.LengthModel._solve",
        "if free else",
        "if (free) or True else",
        "times are not negative, so the last one that is free is not either; without any, nothing gives nothing",
    ),
    Equal("policies.lengths.LengthModel._solve", "found[lowest] >= 0", "found[lowest] > 0", NO_DIFFERENCE),
    Equal("policies.lengths._solved", "found = [0.0]", "found = [1.0]", "only those that are set are read"),
    Equal(
        "policies.lengths._solved",
        "found[j] for j in range(i + 1, count)",
        "found[j] for j in range(count)",
        "up to i the result is still 0",
    ),
    Equal("policies.lengths.Lengths.__init__", "= []", "= None", "the first choice sets it"),
    Equal(
        "policies.lengths.Lengths._partition",
        "best, start = [0.0]",
        "best, start = [1.0]",
        "all times are 1 s more",
    ),
    Equal("policies.lengths.Lengths._partition", "start = [0.0], [0]", "start = [0.0], [1]", "it is not read"),
    Equal("policies.lengths.Lengths._partition", "inf, 0", "inf, 1", "the first time is below inf, which sets it"),
    Equal(
        "policies.lengths.Lengths._partition",
        "end - 1, -1, -1",
        "end - 1, -2, -1",
        "more items after the same partition take no less time",
    ),
    Equal("core.length_queue.LengthLevel.pick", "len(taken) >= most", "len(taken) > most", SLOW_WAY),
    Equal(
        "core.length_queue.LengthLevel.pick",
        "break",
        "return",
        "the first one ends the method; a test tells the other",
        lines=2,
    ),
    Equal("core.length_queue.LengthLevel.pick", "len(taken) > before", "len(taken) >= before", NO_DIFFERENCE),
    Equal(
        "core.length_queue._Next.fits",
        "length <= self.longest",
        "length < self.longest",
        "what is as long as the longest passes both ways",
    ),
    Equal(
        "core.length_queue.LengthQueue._by_rank",
        "if self.only is None else",
        "if (self.only is None) or True else",
        SLOW_WAY,
    ),
    Equal("core.endings.Endings._rebuild", "new_level(0)", "new_level(None)", "nothing waits there"),
    Equal("core.endings.Endings._rebuild", "new_level(0)", "new_level(1)", "nothing waits there"),
    Equal("core.endings.Endings._recount", "missing < 0", "missing <= 0", NO_DIFFERENCE),
    Equal("core.endings.Endings._recount", "missing < 0", "missing < 1", NO_DIFFERENCE),
    Equal(
        "core.endings.Endings._recount",
        "self._deserted[batch] = None",
        'self._deserted[batch] = ""',
        "nobody reads the value",
    ),
    Equal("core.machine.Core.offer_one", "levels.get(request.priority)", "levels.get(None)", SLOW_WAY),
    Equal(
        "core.machine.Core.decide",
        "if self._bisected else",
        "if (self._bisected) or True else",
        "no part gives no part",
    ),
    Equal(
        "core.group_queue.GroupQueue.__init__",
        "self.sizes: Sequence[int] = ()",
        "self.sizes: Sequence[int] = None",
        NO_TRUTH,
    ),
    Equal("core.group_queue.GroupQueue.__init__", "self.by_length = False", "self.by_length = None", NO_TRUTH),
    Equal("core.group_queue.GroupQueue.new_level", "self.only is None and", "self.only is not None and", SLOW_WAY),
    Equal("core.group_queue.GroupQueue.new_level", "self.only = level", "self.only = None", SLOW_WAY),
    Equal("core.group_queue.GroupQueue.take", "only = self.only", "only = None", SLOW_WAY),
    Equal(
        "core.group_queue.GroupQueue._drop_tombstones",
        "len(self.levels) > 1",
        "len(self.levels) >= 1",
        "with one level the method has returned before",
    ),
)


def why_equal(survivor: Survivor) -> str:
    """Return why a survivor is equal in meaning; empty: nobody has said so, and a test is missing."""
    function = f"{survivor.module}.{survivor.function}"
    for equal in EQUAL:
        if equal.function == function and survivor.was.replace(equal.was, equal.became) == survivor.became:
            return equal.why
    for part, why in EQUAL_ANYWHERE:
        if part.search(survivor.was) and part.sub("", survivor.was) == part.sub("", survivor.became):
            return why
    return ""
