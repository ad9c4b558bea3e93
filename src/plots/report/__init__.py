"""The report: a run as one HTML page. `writer` makes it from the sections beside it."""
