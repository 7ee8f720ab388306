"""The verbs on one agent, by what they are for; `agent.py` has them all."""
