"""Parts of training and evaluation.

Network and training: `networks`, `layers`, `convolution`, `losses`, `optimization`, `muon`,
`augment`, `interference`, `distributed`, `checkpoints`, `trackers`. Evaluation: `predictions`,
`metrics`, `intervals`, `thresholds`, `calibration`, `conformal` (limits of coverage), `decisions`
(all three, in a card), `unlike` (how unlike the training recordings an input is), `comparison`,
`subgroups`, `mistakes` and `challenge_score`; `score_files` and `score_tables` read the predictions
of other programs, and `features` holds what a network computes before its head; `results` holds the
types of the results, and `text` formats them. `leaks` finds recordings that a model was trained on,
and `disturbances` test a network.
"""
