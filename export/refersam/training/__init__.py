"""Training: `start` puts a run together, `loop` is the run.

`config` says what a run is, `objective` what it minimises, `demo` which terms drawn scenes add to that,
`distributed` how processes agree, `checkpoints` what is on disk. The published loss is `model.criterion`.
"""
