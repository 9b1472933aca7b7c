"""Image-text retrieval: every text scored against every image."""
