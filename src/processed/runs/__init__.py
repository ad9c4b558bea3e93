"""A preprocessing run over many records.

`plan` lists the records, `tasks` describes one of them, `chunks` processes several in a worker,
`pool` sends chunks to workers, `resume` skips what earlier runs have done, `staging` holds the
output folder, `log` writes the log file and shows progress.
"""
