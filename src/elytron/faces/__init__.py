"""The faces: ways in from outside of Python. The command line, for now."""
