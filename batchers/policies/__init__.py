"""The policies, which decide when a batch is dispatched that could still grow.

`base` says what a policy and its rule are; start there. `greedy`, `window` and `adaptive` are the policies.
`cohort`, `cost_model` and `speed_up` are what `adaptive` and `concurrency="auto"` learn from. All modules are
pure: they use no clock, thread, event loop or random numbers. They import `errors` only: a policy gets numbers
and returns times.
"""
