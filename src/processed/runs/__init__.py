"""A preprocessing run over many records.

`plan` lists the records, `tasks` describes one of them, `chunks` processes several in a worker,
`pool` sends chunks to workers, `resume` finds what earlier runs have done, `staging` keeps the
output of a run, `log` records it.
"""
