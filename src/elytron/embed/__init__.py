"""Embedders: from texts to vectors, by whatever the caller has; and how vectors are kept."""
