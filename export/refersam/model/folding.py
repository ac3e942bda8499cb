"""What depends on the picture's size alone enters an exported graph as a constant, not as nodes.

An export fixes height and width, and leaves the batch free. Resized position tables, sine codes and
reference points are then constants, but a TorchScript trace would record every step that makes them, and
neither PyTorch's exporter nor every runtime folds those steps away.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T", Tensor, tuple[Tensor, ...])


@contextmanager
def untraced() -> Iterator[None]:
    """Nothing that runs inside is recorded by a surrounding TorchScript trace."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)


def static_shape(x: Tensor) -> tuple[int, ...]:
    """`x.shape` as plain integers, also within a trace. Not for the batch axis of an export."""
    with untraced():
        return tuple(x.shape)


def folded(compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, differentiable as usual; within a trace its value becomes a constant.

    `compute` may depend on parameters and on picture sizes, never on an input of the trace.
    """
    if not torch.jit.is_tracing():
        return compute()
    with untraced(), torch.no_grad():
        return compute()


def constant(function: Callable[..., T]) -> Callable[..., T]:
    """Caches a function of hashable arguments (sizes, device, dtype) whose result nobody writes to."""

    @functools.lru_cache(maxsize=64)
    def compute(*args: object) -> T:
        # An inference tensor in the cache would be useless to a later training step.
        with untraced(), torch.inference_mode(False), torch.no_grad():
            return function(*args)

    return functools.wraps(function)(compute)
