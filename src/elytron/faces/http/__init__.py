"""Http: the verbs of a store as HTTP. `serve` runs it; `elytron.connect` speaks to it."""
