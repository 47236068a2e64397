"""Pure: the state machine that decides which items run, when, and what an error means for whom.

It imports `errors`, `options`, `stats` and `policies`, and from the standard library nothing that knows a clock, a
thread, an event loop or chance. Time is an argument. Begin with `machine`.
"""
