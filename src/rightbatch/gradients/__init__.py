"""Gradients looked at: squared norms of parts of a batch, and the noise that they show."""
