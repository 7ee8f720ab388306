"""Mcp: an agent's memory as tools of the Model Context Protocol. `elytron mcp` runs it."""
