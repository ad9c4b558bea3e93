"""Label mappings of known collections, one module each; `src.labels.builders` registers them."""
