"""Give stored results the names that modules and functions have now: `python -m benchmarks.rename`.

Version 0.3 moved the modules of the library into folders and replaced private words. The measurements stay the
same; only the names in them change. A second run changes nothing more.
"""

from __future__ import annotations

import json
import re

from .environment import ROOT

FILE = ROOT / "assets" / "results" / "full" / "faults" / "mutants.json"

MODULES = {
    "adaptive": "policies.adaptive",
    "cohort": "policies.cohort",
    "core": "core.machine",
    "cost_model": "policies.cost_model",
    "decisions": "core.decisions",
    "drain": "core.drain_rate",
    "groups": "core.groups",
    "lanes": "core.group_queue",
    "ledger": "core.accounting",
    "order": "core.indexed_heap",
    "outcomes": "core.outcomes",
    "policy": "policies.base",
    "speed_up": "policies.speed_up",
}

WORDS = {
    "_divided": "_bisected",
    "_goes_at": "_hold_end",
    "_leave": "_remove",
    "_ledger": "_accounting",
    "_moving": "_in_transition",
    "_now": "_last_event_time",
    "_over": "_time_out",
    "lane": "queue",
    "next_to_go": "select",
    "ticket": "request",
    "tickets": "requests",
    "torn": "inconsistent",
}

STATE = {"Core.__init__": "State.__init__", "Core._remove": "State._remove"}
"""Functions that moved to `core/state.py`."""


def renamed(text: str) -> str:
    """Return a line of code, or the name of a function, with the words of now."""
    return re.sub(r"\w+", lambda word: WORDS.get(word[0], word[0]), text)


def main() -> None:
    """Rename what is stored."""
    stored = json.loads(FILE.read_text())
    found = stored["measured"]
    found["made"] = {MODULES.get(name, name): count for name, count in found["made"].items()}
    for survivor in found["survived"]:
        survivor["module"] = MODULES.get(survivor["module"], survivor["module"])
        for key in ("function", "was", "became"):
            survivor[key] = renamed(survivor[key])
        if survivor["module"] == "core.machine" and survivor["function"] in STATE:
            survivor["module"], survivor["function"] = "core.state", STATE[survivor["function"]]
    FILE.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
