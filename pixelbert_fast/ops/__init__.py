"""The three ops between a backbone's map and the Transformer's tokens."""

from .functional import pixel_embed, pool_gather, sample_positions

__all__ = ["pixel_embed", "pool_gather", "sample_positions"]
