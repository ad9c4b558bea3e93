"""Builders of mapping rows for known collections, one module per family; `src.label_builders` is
the way in.
"""
