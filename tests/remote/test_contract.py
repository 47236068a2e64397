"""The contract of a batcher, on a client whose batcher is served by another thread.

All tests of `tests/contract` that take a batcher from the fixture `make` run here too; `make` is then that of this
folder. `LOCAL` has those that cannot, with their reasons. The others make batchers themselves, as classes,
decorators or with a clock of their own: a client has none of these.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from tests.support.children import ROOT

OWN_ERRORS = "an exception whose class is not one of batchers arrives as RemoteError"
ON_ITS_WAY = "a withdrawal, or a deadline, is on its way to the server while the batch ends"
AT_THE_SERVER = "the limit of the queue is the server's: its refusal arrives as the outcome of the call"
REENTRANT = "nobody sees that a function waits for a client of its own batcher"
GROUPS = "groups travel as JSON, and are compared as what it makes of them"
INSIDE = "the test looks inside of a driver"
NO_CODEC = "an item is something that the codec can say"
THREADS = "the test counts the threads of the process, and the server has one here"

LOCAL = {
    "test_a_poison_item_among_lengths": OWN_ERRORS,
    "test_a_returned_exception_fails_its_item_only": OWN_ERRORS,
    "test_an_exception_that_cannot_be_shown": OWN_ERRORS,
    "test_bisect_finds_the_poison": OWN_ERRORS,
    "test_callers_at_the_end_of_the_stack": OWN_ERRORS,
    "test_each_caller_gets_a_copy": OWN_ERRORS,
    "test_ends_of_iterations": OWN_ERRORS,
    "test_errors_are_raised": OWN_ERRORS,
    "test_process_many_withdraws_together": OWN_ERRORS,
    "test_process_many_says_which_item_has_failed": OWN_ERRORS,
    "test_the_next_batch_runs": OWN_ERRORS,
    "test_what_would_harm_a_caller": OWN_ERRORS,
    "test_all_of_a_running_batch_leave": ON_ITS_WAY,
    "test_cancel_wins_over_a_result_that_is_there": ON_ITS_WAY,
    "test_deadline_in_a_running_batch": ON_ITS_WAY,
    "test_futures_of_threads_can_be_waited_for": ON_ITS_WAY,
    "test_a_caller_that_cannot_take_its_outcome": ON_ITS_WAY,
    "test_a_thread_withdraws_by_its_future": ON_ITS_WAY,
    "test_an_error_for_a_caller_that_left_makes_no_noise": ON_ITS_WAY,
    "test_callers_that_the_collector_ended_leave_their_places": AT_THE_SERVER,
    "test_full_queue": AT_THE_SERVER,
    "test_the_bound_is_exact_under_threads": AT_THE_SERVER,
    "test_a_wake_up_that_fails": INSIDE,
    "test_a_busy_thread_that_is_struck": INSIDE,
    "test_cancel_storm": ON_ITS_WAY,
    "test_groups_that_cannot_be_compared": GROUPS,
    "test_groups_that_change": GROUPS,
    "test_no_caller_holds_the_items_of_others": OWN_ERRORS,
    "test_process_many_hears_of_a_failure_at_once": OWN_ERRORS,
    "test_calls_from_inside_async": REENTRANT,
    "test_calls_from_inside_sync": REENTRANT,
    "test_executor_that_raises": OWN_ERRORS,
    "test_an_item_that_is_too_long": "costs and lengths travel as floats, which the text of the error shows",
    "test_items_are_let_go": NO_CODEC,
    "test_items_of_a_batch_that_has_ended": NO_CODEC,
    "test_where_it_runs": "a dump has the line of the client before that of the batcher",
    "test_a_failed_batch_is_logged_once": "the thread of the server logs it, maybe after its callers know",
    "test_a_coroutine_that_does_not_end_when_cancelled": "the test ends by a stop of the batcher itself",
    "test_threads_are_counted": THREADS,
    "test_what_was_given_up_is_shown": "a dump has the line of the client before that of the batcher",
    "test_never_started": THREADS,
    "test_nothing_is_left": THREADS,
    "test_a_stop_that_runs_out_of_time": "what a client gives up, the served batcher counts as cancelled",
    "test_any_object_is_an_item": NO_CODEC,
}


def _is_of_the_contract(name: str, test: Any) -> bool:
    parameters = set(inspect.signature(test).parameters) if name.startswith("test_") else set()
    return "make" in parameters and not parameters & {"backend", "time"}


LOCAL_FILES = {"test_abandoned": "the end of a batch without callers is a matter of the batcher that is served"}

MODULES = [
    importlib.import_module(f"tests.contract.{file.stem}")
    for file in sorted(Path(ROOT, "tests/contract").glob("test_*.py"))
    if file.stem not in LOCAL_FILES
]

FIXTURES = {
    name: value
    for module in MODULES
    for name, value in vars(module).items()
    if type(value).__name__ == "FixtureFunctionDefinition" and not value._fixture_function_marker.autouse
}

FOUND = {
    name: test for module in MODULES for name, test in vars(module).items() if _is_of_the_contract(name, test)
}

globals().update(FIXTURES)
globals().update({name: test for name, test in FOUND.items() if name not in LOCAL})


def test_no_reason_is_left_over() -> None:
    """Each test that is left out exists; a test of the same name in two files would hide one of them."""
    assert LOCAL.keys() <= FOUND.keys()
    assert len(FOUND) > 120
