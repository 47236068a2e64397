"""Changes of limits on their way to another process: a policy travels as its name and its values."""

from __future__ import annotations

import dataclasses
from typing import Any

from batchers.errors import OptionError
from batchers.options import Changes
from batchers.policies.adaptive import Adaptive
from batchers.policies.base import Policy
from batchers.policies.greedy import Greedy
from batchers.policies.window import Window

_POLICIES: dict[str, type[Any]] = {kind.__name__: kind for kind in (Greedy, Window, Adaptive)}


def said(changes: Changes) -> dict[str, Any]:
    """Return changes as JSON says them. Raises OptionError for a policy that is none."""
    found: dict[str, Any] = dict(changes)
    policy = found.get("policy")
    if isinstance(policy, Policy) and type(policy).__name__ in _POLICIES:
        found["policy"] = [type(policy).__name__, dataclasses.asdict(policy)]  # type: ignore[call-overload]
    elif policy is not None:
        msg = f"policy must be Greedy(), Window(seconds) or Adaptive() or None, not {policy!r}"
        raise OptionError(msg)
    return found


def changes_of(found: dict[str, Any]) -> Changes:
    """Return changes that have come. Raises OptionError."""
    if found.get("policy") is not None:
        name, values = found["policy"]
        found["policy"] = _POLICIES[name](**values)
    changes: Any = found
    return changes  # type: ignore[no-any-return]
