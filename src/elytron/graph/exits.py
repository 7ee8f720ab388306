"""Exits: the codes with which the worker ends by itself, and what they mean to the client."""

DONE = 0  # its parent ended, or told it to
IDLE = 70  # nobody asked for a while
MISSING = 71  # the engine is not installed; its first answer says so
MEMORY = 72  # it took more than `max_worker_mb`
DISK = 73  # the engine could not write or read, or failed in a checkpoint
PROTOCOL = 74  # a frame over the limit
FAULT = 75  # an error of ours that nothing caught
