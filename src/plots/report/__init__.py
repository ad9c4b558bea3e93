"""The report: a run as one HTML page. `writer` builds it from the sections beside it."""
