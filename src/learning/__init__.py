"""Parts of training and evaluation.

Network and training: `layers`, `convolution`, `losses`, `optimization`, `muon`, `augment`,
`interference`, `distributed`, `checkpoints`, `trackers`. Evaluation: `predictions`, `metrics`,
`intervals`, `thresholds`, `calibration`, `comparison`, `subgroups`, `mistakes` and
`challenge_score`; `results` holds the types of their results, and `text` formats them. `leaks`
finds recordings that a model was trained on, and `disturbances` test a network.
"""
