"""Readers of file formats, one module each; `src.records.reading` picks among them."""
