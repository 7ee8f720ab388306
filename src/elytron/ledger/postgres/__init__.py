"""The ledger on PostgreSQL: the same statements on a server's tables, each agent's rows its own."""
