"""Ablations: rows of a table, each the same stages of training but for something changed or left out."""
