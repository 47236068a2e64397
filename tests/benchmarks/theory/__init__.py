"""Bounds, the simulator, and the policies in it."""
