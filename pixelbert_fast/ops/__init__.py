"""The three ops between a backbone's map and the Transformer's tokens."""

from .backends import BackendError, backend
from .functional import pixel_embed, pool_gather, sample_positions

__all__ = ["BackendError", "backend", "pixel_embed", "pool_gather", "sample_positions"]
