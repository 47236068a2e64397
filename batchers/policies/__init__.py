"""Pure: the policies, which decide when a batch that could still grow is dispatched.

Some of them learn from earlier batches. The package imports `errors`, and no module of the standard library that
gives access to a clock, a thread, an event loop or random numbers. A policy does not depend on the core: it
receives numbers and returns times. Start reading with `base`.
"""
