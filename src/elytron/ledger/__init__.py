"""The ledger: one SQLite file an agent, which holds everything that must not be lost."""
