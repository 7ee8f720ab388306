"""The graph: a projection of the ledger, in a worker process that may die at any time."""
