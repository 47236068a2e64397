"""The state machine that decides which items run, when they run, and which requests an error affects.

All modules of this package are pure: they use no clock, thread, event loop or random numbers, and import nothing
from the standard library that provides them. Time is an argument. Of the rest of this library, they import only
`errors`, `options`, `stats` and `policies`. The module to read first is `machine`.
"""
