"""The drivers, which wait: they ask the core, call `process_batch`, and deliver outcomes. They decide nothing.

`driver` is the part that both share, and `locking` the rule for its lock; start there. `threading_driver` and
`asyncio_driver` (with `home_loop`) are the two, and never import each other. `requests` makes requests from calls,
`invocation` calls the batch function, `delivery` resolves futures, `threads`, `loops` and `pools` are a batcher's
own threads, loops and executors, `shutdown` waits for the end, `lifetime` sees to forks and the exit. They import
the core, and of a batcher they use only its `process_batch`.
"""
