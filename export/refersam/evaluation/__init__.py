"""Evaluation: `score` asks a model the questions of a data set, `predictors` are the forms a model comes in.

`metrics` counts, `reports` writes what was counted for people and for programs.
"""
