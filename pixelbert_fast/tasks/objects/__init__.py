"""Naming single objects: a few supervised minutes that stand in for a backbone's ImageNet weights."""
