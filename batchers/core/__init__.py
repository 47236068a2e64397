"""The state machine that decides which items run, when they run, and which requests an error affects.

`machine` decides, on the data of `state`; start there. `decisions` and `outcomes` hold the types of its answers,
`refusals` and `messages` the errors that callers get, `groups` the order of the groups. All modules are pure: they
use no clock, thread, event loop or random numbers, and import nothing that provides them. Time is an argument. Of
this library they import only `errors`, `options`, `stats` and `policies`.
"""
