"""Ablations: rows of a table, each the same stages of training by recipes, with something changed or left out."""
