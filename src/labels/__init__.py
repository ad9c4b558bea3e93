"""Labels of recordings: the label mapping, matching its rows with files, and vocabularies.

`mapping` loads and extends the table, `matching` finds the file of each row, and `crosswalk`
translates between vocabularies. `intervals` holds labels with a time. `builders` makes mappings for
known collections, with one module for each in `collections`. `text_tables` reads and writes small
tables.
"""
