"""The way in: admission decides what may be written, the writer commits it."""
