"""Concepts: which of those known a text names, and which new ones it may be about."""
