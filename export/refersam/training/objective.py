"""What a model is trained on: the mask loss, and auxiliary labels for one that starts from nothing.

The published criterion samples points (refersam.criterion). A demonstration picture has so few pixels that
the same two terms over all of them cost no more; that is the dense form here.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refersam.criterion import dice, point_criterion
from refersam.data.batches import NUM_ATTRIBUTES, NUM_RELATIONS, NUM_THINGS, Batch
from refersam.model import Output, ReferSAM
from refersam.stages import normalise

CRITERIA = ("dense", "points")


@dataclass(frozen=True)
class Weights:
    """Factors of the terms of the loss."""

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


class Objective(nn.Module):
    """A model together with the linear heads of the auxiliary labels; its forward pass is the loss.

    The labels come free with drawn scenes and teach what is where, and what is asked for, before any mask is
    right. Heads, all linear: the thing at each cell of the image prefix (stride 8 and 16); the thing,
    reference, attribute and relation in the text summary; foreground or not at each stride-8 token that
    leaves the interactor.
    """

    def __init__(self, model: ReferSAM, weights: Weights, criterion: str = "dense") -> None:
        super().__init__()
        if criterion not in CRITERIA:
            raise ValueError(f"unknown criterion {criterion!r}; allowed: {', '.join(CRITERIA)}")
        self.model, self.weights, self.criterion = model, weights, criterion
        width, text, channels = model.config.vit.width, model.config.text.width, model.config.decoder.width
        self.cell8 = nn.Linear(width, NUM_THINGS)
        self.cell16 = nn.Linear(width, NUM_THINGS)
        self.words = nn.ModuleDict(
            {
                "thing": nn.Linear(text, NUM_THINGS),
                "reference": nn.Linear(text, NUM_THINGS),
                "attribute": nn.Linear(text, NUM_ATTRIBUTES),
                "relation": nn.Linear(text, NUM_RELATIONS),
            }
        )
        self.grounding = nn.Linear(channels, 1)

    def prefix_loss(self, vit_feats: Tensor, adapter_feats: Tensor, classes: Tensor) -> Tensor:
        """Cross-entropy of the thing at each cell's centre, background at a third of the weight."""
        balance = torch.ones(NUM_THINGS, device=classes.device)
        balance[0] = 1 / 3
        at8, at16 = classes[:, 4::8, 4::8].flatten(1), classes[:, 8::16, 8::16].flatten(1)
        logits8 = self.cell8(adapter_feats[:, : at8.shape[1]])
        logits16 = self.cell16(vit_feats.flatten(1, 2))
        return F.cross_entropy(logits8.flatten(0, 1), at8.flatten(), balance) + F.cross_entropy(
            logits16.flatten(0, 1), at16.flatten(), balance
        )

    def text_loss(self, lang_feats: Tensor, batch: Batch) -> Tensor:
        summary = self.model.vl_adapter.summary(lang_feats, batch.attention_mask != 0)[:, 0]
        terms = [F.cross_entropy(head(summary), getattr(batch, name)) for name, head in self.words.items()]
        return torch.stack(terms).sum()

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

    def forward(self, batch: Batch, joint: bool, auxiliary: float) -> dict[str, Tensor]:
        """Losses by name, `total` the weighted sum of them.

        joint: False trains the image prefix and the text encoder on their own labels only.
        auxiliary: factor in [0, 1] on all auxiliary terms.
        """
        model, weights = self.model, self.weights
        vit_feats, adapter_feats, c1 = model.image_prefix(normalise(batch.images))
        lang_feats = model.text(batch.input_ids, batch.attention_mask)
        losses = {
            "prefix": self.prefix_loss(vit_feats, adapter_feats, batch.classes),
            "text": self.text_loss(lang_feats, batch),
        }
        total = auxiliary * (weights.prefix * losses["prefix"] + weights.text * losses["text"])
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
            eighth = F.avg_pool2d(target[:, None], 8)[:, 0]
            grounded = self.grounding(adapter_tokens[:, : eighth[0].numel()]).reshape(eighth.shape)
            losses["grounding"] = bce_and_dice(grounded, eighth, weights)
            total = total + losses["mask"] + weights.coarse * losses["coarse"]
            total = total + auxiliary * weights.grounding * losses["grounding"]
        return {**losses, "total": total}
