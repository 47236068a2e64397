"""Pure: when a batch goes that could still grow, and what is learned from those that went.

It imports `errors`, and from the standard library nothing that knows a clock, a thread, an event loop or chance. A
policy knows nothing of the core: it gets numbers and returns times. Begin with `base`.
"""
