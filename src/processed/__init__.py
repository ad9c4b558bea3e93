"""The files that preprocessing makes and loaders read, and the computation behind them.

Signals: `signals`, `resampling`, `normalization`, `quality`, `fingerprints`. Files: `record_files`,
`npz`, `manifest`, `splits`, `duplicates`, `packed`, `files`, `mirror`, `export`. Training
data: `targets`, `datasets`. A preprocessing run: `runs`.
"""
