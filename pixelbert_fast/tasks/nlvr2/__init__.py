"""NLVR2: whether a statement is true of a pair of images."""
