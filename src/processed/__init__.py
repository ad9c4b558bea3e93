"""What preprocessing makes and the loaders read.

Signals: `signals`, `resampling`, `normalization`, `quality`, `fingerprints`. Files: `record_files`,
`npz`, `manifest`, `splits`, `duplicates`, `packed`, `files`, `locks`, `mirror`, `export`. Training
data: `targets`, `datasets`. A preprocessing run: `runs`.
"""
