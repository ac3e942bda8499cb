"""Serving: from a checkpoint to what Triton loads, and the proof that it computes the same.

`checkpoint` reads weights and what is needed to serve them, `stages` cuts the model, `graph` makes ONNX of
a stage, `storage` makes it small, `comparison` holds it against PyTorch, `repository` lays the files out,
`export` does all of it. `parity` compares the model itself with recorded outputs of the published code, on
the weights of `recipe`.
"""
