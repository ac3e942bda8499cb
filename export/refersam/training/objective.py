"""What a model is trained on: the loss of its masks, and the terms that a data set adds.

The published criterion samples points (`model.criterion`). A demonstration picture has so few pixels that the
same two terms over all of them cost no more; that is the dense form here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from refersam.data.batches import Batch
from refersam.data.transforms import normalise
from refersam.model import Output, ReferSAM
from refersam.model.criterion import dice, point_criterion

CRITERIA = ("dense", "points")

TEXT_ENCODER = "model.text_encoder."
"""Beginning of the names of the text encoder's parameters in an objective."""


@dataclass(frozen=True)
class Weights:
    """Factors of the terms of the loss. `prefix`, `text` and `grounding` are of `training.demo`."""

    bce: float = 5.0
    dice: float = 1.0
    edge: float = 6.0  # added to the weight 1 of a pixel near the outline in the BCE of both masks
    coarse: float = 0.7
    prefix: float = 1.0
    text: float = 0.3
    grounding: float = 0.5


def near_outline(target: Tensor, radius: int) -> Tensor:
    """float32 [N, H, W], 1 where another label is at most `radius` pixels away, in rows and in columns."""
    grid, side = target[:, None], 2 * radius + 1
    highest = F.max_pool2d(grid, side, 1, radius)
    lowest = -F.max_pool2d(-grid, side, 1, radius)
    return (highest > lowest).float()[:, 0]


def bce_and_dice(logits: Tensor, target: Tensor, weights: Weights, radius: int = 0) -> Tensor:
    """Weighted BCE + Dice over all pixels of [N, H, W].

    With a radius, the BCE counts the pixels near the outline more. They are few, and without it the masks
    find the right thing long before its shape; the published criterion samples points there to the same end.
    """
    pixel = 1 + weights.edge * near_outline(target, radius) if radius else None
    bce = F.binary_cross_entropy_with_logits(logits, target, pixel)
    return weights.bce * bce + weights.dice * dice(logits.flatten(1), target.flatten(1))


class Auxiliary(nn.Module):
    """Terms beside the loss of the masks, with the heads that they need. `training.demo` has an example.

    A subclass gives terms that the image prefix and the text encoder can be trained on alone, terms that need
    the interactor, or both.
    """

    terms: ClassVar[tuple[str, ...]]
    """Names of all terms, for the log."""

    text_side: ClassVar[tuple[str, ...]] = ()
    """What the names of this module's parameters that read words begin with."""

    def prefix_losses(
        self, vit_feats: Tensor, adapter_feats: Tensor, summary: Tensor, batch: Batch
    ) -> Mapping[str, tuple[float, Tensor]]:
        """Terms by name, each with its factor, from what the interactor reads.

        vit_feats [B, h, w, D], adapter_feats [B, A, D], summary of the phrases [B*P, text width].
        """
        return {}

    def joint_losses(self, adapter_tokens: Tensor, target: Tensor) -> Mapping[str, tuple[float, Tensor]]:
        """Terms by name, each with its factor, from what leaves the interactor.

        adapter_tokens [B*P, A, C], target [B*P, S, S].
        """
        return {}


class Objective(nn.Module):
    """A model together with the heads of auxiliary terms, if there are any; its forward pass is the loss."""

    def __init__(
        self,
        model: ReferSAM,
        weights: Weights,
        criterion: str = "dense",
        auxiliary: Auxiliary | None = None,
    ) -> None:
        super().__init__()
        if criterion not in CRITERIA:
            raise ValueError(f"unknown criterion {criterion!r}; allowed: {', '.join(CRITERIA)}")
        self.model, self.weights, self.criterion = model, weights, criterion
        self.auxiliary = auxiliary

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of all losses that `forward` may give, `total` first."""
        return ("total", "mask", "coarse", *(self.auxiliary.terms if self.auxiliary else ()))

    @property
    def text_side(self) -> tuple[str, ...]:
        """What the names of the parameters that read words begin with. All others are the image side."""
        own = self.auxiliary.text_side if self.auxiliary else ()
        return (TEXT_ENCODER, *(f"auxiliary.{name}" for name in own))

    def mask_losses(self, output: Output, target: Tensor) -> dict[str, Tensor]:
        """`mask` and `coarse`, of the final and the coarse logits."""
        if self.criterion == "points":
            terms = point_criterion(output, target)
            return {
                "mask": terms["loss_mask"] + terms["loss_dice"],
                "coarse": terms["loss_mask_aux"] + terms["loss_dice_aux"],
            }
        quarter = F.avg_pool2d(target[:, None], 4)[:, 0]
        return {
            "mask": bce_and_dice(output.logits, target, self.weights, radius=3),
            "coarse": bce_and_dice(output.coarse_logits[:, 0], quarter, self.weights, radius=1),
        }

    def forward(self, batch: Batch, joint: bool, factor: float) -> dict[str, Tensor]:
        """Losses by name, `total` the weighted sum of them.

        joint: False trains the image prefix and the text encoder on auxiliary terms only.
        factor: in [0, 1], on all auxiliary terms.
        """
        model, weights = self.model, self.weights
        vit_feats, adapter_feats, c1 = model.image_prefix(normalise(batch.images))
        lang_feats = model.text(batch.input_ids, batch.attention_mask)
        extra: dict[str, tuple[float, Tensor]] = {}
        if self.auxiliary:
            summary = model.vl_adapter.summary(lang_feats, batch.attention_mask != 0)[:, 0]
            extra |= self.auxiliary.prefix_losses(vit_feats, adapter_feats, summary, batch)
        losses = {name: term for name, (_, term) in extra.items()}
        total = factor * sum(weight * term for weight, term in extra.values())
        if joint:
            phrases = len(batch.input_ids) // len(batch.images)
            vit_feats, adapter_feats, c1 = (
                x.repeat_interleave(phrases, 0) for x in (vit_feats, adapter_feats, c1)
            )
            adapter_tokens, lang_tokens, image_embeddings = model.vli(
                vit_feats, adapter_feats, lang_feats, batch.attention_mask
            )
            sparse_prompts, mask_prompt, coarse = model.vlp(
                adapter_tokens, lang_tokens, batch.attention_mask, c1
            )
            low_res = model.decoder(image_embeddings, sparse_prompts, mask_prompt)
            target = batch.targets
            losses |= self.mask_losses(Output(model.upsample(low_res), low_res, coarse), target)
            total = total + losses["mask"] + weights.coarse * losses["coarse"]
            if self.auxiliary:
                for name, (weight, term) in self.auxiliary.joint_losses(adapter_tokens, target).items():
                    losses[name] = term
                    total = total + factor * weight * term
        return {**losses, "total": total}
