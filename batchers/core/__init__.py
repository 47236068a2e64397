"""The state machine that decides which items run, when they run, and which requests an error affects.

`machine` decides, on the data of `state`; start there. `endings` has the events that concern all requests at
once. `decisions` and `outcomes` hold the types of its answers, `exceptions` makes the copies that callers get,
`refusals` and `messages` the errors, `groups` the order of the groups. All modules are pure: they
use no clock, thread, event loop or random numbers, and import nothing that provides them. Time is an argument. Of
this library they import only `errors`, `options`, `stats` and `policies`.
"""
