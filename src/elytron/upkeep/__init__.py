"""Upkeep: what keeps an agent within its limits while it is used."""
