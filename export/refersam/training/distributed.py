"""How the processes of a run agree: one process a variant, or several, that share the image side."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from refersam.training.objective import Objective

T = TypeVar("T", bound=Hashable)


class Team:
    """The processes that train together, as one of them sees it; a single process without torch.distributed.

    With `variants` > 1, process r of all trains variant r % variants; the first `variants` processes save.
    Raises ValueError when the processes cannot be shared out so.
    """

    def __init__(self, variants: int = 1) -> None:
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if self.world % variants:
            raise ValueError(
                f"{variants} variants need {variants} processes, or a multiple of that, not {self.world}:"
                f" torchrun --nproc-per-node {variants} -m refersam.train …"
            )
        self.variants, self.saves = variants, self.rank < variants
        self.own_group = None
        for first in range(variants if self.world > 1 else 0):
            ranks = list(range(first, self.world, variants))
            group = dist.new_group(ranks)
            if self.rank in ranks:
                self.own_group = group

    @torch.no_grad()
    def agree(self, objective: Objective) -> None:
        """Gives all processes the image side of the first, and the text side of their variant's first."""
        if self.world == 1:
            return
        for key, value in objective.state_dict().items():
            own = key.startswith(objective.text_side)
            group = self.own_group if own else None
            sent = value.contiguous()
            dist.broadcast(sent, dist.get_global_rank(group, 0) if own else 0, group)
            value.copy_(sent)

    def average_gradients(
        self, image_side: Sequence[nn.Parameter], text_side: Sequence[nn.Parameter]
    ) -> None:
        """Averages gradients: of the image side over all processes, of the text side over the variant's."""
        if self.world > 1:
            _average(image_side, None)
            _average(text_side, self.own_group)

    def shared(self, found: Iterable[T]) -> tuple[set[T], list[list[T]]]:
        """What all processes have found, and what each of them has."""
        everyone: list[list[T]] = [list(found)] * self.world
        if self.world > 1:
            everyone = [[] for _ in range(self.world)]
            dist.all_gather_object(everyone, list(found))
        return set(everyone[0]).intersection(*everyone), everyone

    def first_says(self, yes: bool, device: torch.device) -> bool:
        """What the first process says, in all of them."""
        if self.world == 1:
            return yes
        said = torch.tensor(yes, device=device)
        dist.broadcast(said, 0)
        return bool(said)


def _average(parameters: Sequence[nn.Parameter], group: dist.ProcessGroup | None) -> None:
    """Of a group of processes, which must all have the same gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat, group=group)
    flat /= dist.get_world_size(group)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
