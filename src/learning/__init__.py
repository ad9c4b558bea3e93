"""Parts of training and evaluation.

Network and training: `layers`, `convolution`, `optimization`, `muon`, `augment`, `distributed`,
`checkpoints`, `tensorboard_log`. Evaluation: `predictions`, `metrics`, `intervals`, `thresholds`,
`calibration`, `comparison`, `subgroups`, `mistakes`, `challenge_score`, and `text`, which formats
their results. `leaks` finds recordings that a model was trained on.
"""
