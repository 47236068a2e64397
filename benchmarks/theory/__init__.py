"""What queueing theory says of a batcher, and a simulator that drives the library's own core."""
