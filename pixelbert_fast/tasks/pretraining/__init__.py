"""Pre-training: masked language modelling and image-text matching over the same joint sequences."""
