"""Readers, one module per family of formats; `src.records` picks among them."""
