"""Drivers: worker threads, event loops and timers, the calls of `process_batch`, and the delivery of outcomes.

All waiting takes place in this package. It imports the core and the modules that the core imports. A driver makes
no decisions: it asks the core. The two drivers never import each other. Of a batcher, they use only its
`process_batch`. The module to read first is `driver`.
"""
