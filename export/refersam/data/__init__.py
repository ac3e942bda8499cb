"""Data sets: pictures, phrases about them, and the masks that the phrases mean.

`sample` says what a data set gives, `catalogue` opens one by its name, `transforms` makes pictures and masks
square, `batches` draws what a training step sees. Every other folder here is one data set.
"""
