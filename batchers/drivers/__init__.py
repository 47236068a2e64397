"""What waits: worker threads, event loops and timers, the calls of `process_batch`, and the delivery of outcomes.

It imports the core and what the core imports. A driver decides nothing: it asks the core. The two drivers never
import each other, and know of a batcher only its `process_batch`. Begin with `driver`.
"""
