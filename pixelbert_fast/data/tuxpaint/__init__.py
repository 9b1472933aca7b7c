"""Captioned scenes and single objects composed from the photographs of Tux Paint's stamp collection."""
