"""Policies against each other and against theory: simulated, in real time, and behind a server."""
