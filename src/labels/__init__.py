"""Labels of recordings: the label mapping, how its rows match files, and label vocabularies.

`mapping` loads and extends the table, `matching` finds the file of each row, `crosswalk` translates
between vocabularies. `builders` makes mappings for known collections, one module each in
`collections`.
"""
