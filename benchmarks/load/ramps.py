"""How many users there are, and when. In a file of its own: importing Locust changes the whole process."""

from __future__ import annotations

RAMPS = {"v0.1.0": (360.0, 120.0), "v0.2.0": (60.0, 300.0)}
"""Seconds up to the full number of users, and seconds with all of them, in the original reports."""
