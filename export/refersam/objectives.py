"""What the demonstration model is trained on: the dense form of the mask loss, and auxiliary labels.

The published criterion samples points (refersam.criterion). A demonstration picture has so few pixels that
the same two terms over all of them cost no more, so that is what is used here.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refersam.data.batches import NUM_ATTRIBUTES, NUM_RELATIONS, NUM_THINGS, Batch
from refersam.model import ReferSAM

# ImageNet statistics of the input normalisation, (x / 255 - mean) / std.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Weights:
    """Factors of the terms of the loss."""

    bce: float = 5.0
    dice: float = 1.0
    coarse: float = 0.5
    prefix: float = 1.0
    text: float = 0.3
    grounding: float = 0.5


def normalise(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W]."""
    mean = torch.tensor(PIXEL_MEAN, device=images.device)
    std = torch.tensor(PIXEL_STD, device=images.device)
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def bce_and_dice(logits: Tensor, target: Tensor, weights: Weights) -> Tensor:
    """Weighted BCE + Dice over all pixels of [N, H, W]; Dice is 1 - (2 Σpt + 1) / (Σp + Σt + 1)."""
    bce = F.binary_cross_entropy_with_logits(logits, target)
    p, t = logits.sigmoid().flatten(1), target.flatten(1)
    dice = 1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)
    return weights.bce * bce + weights.dice * dice.mean()


class Objective(nn.Module):
    """A model together with the linear heads of the auxiliary labels; its forward pass is the loss.

    Small models without these labels find the things but ignore the text for a long time. Heads, all linear:
    the thing at each cell of the image prefix (stride 8 and 16); the thing, reference, attribute and relation
    in the text summary; foreground or not at each stride-8 token that leaves the interactor.
    """

    def __init__(self, model: ReferSAM, weights: Weights) -> None:
        super().__init__()
        self.model, self.weights = model, weights
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
            quarter = F.avg_pool2d(target[:, None], 4)[:, 0]
            eighth = F.avg_pool2d(target[:, None], 8)[:, 0]
            final = F.interpolate(low_res, target.shape[-2:], mode="bilinear", align_corners=True)[:, 0]
            grounded = self.grounding(adapter_tokens[:, : eighth[0].numel()]).reshape(eighth.shape)
            losses["mask"] = bce_and_dice(final, target, weights)
            losses["coarse"] = bce_and_dice(coarse[:, 0], quarter, weights)
            losses["grounding"] = bce_and_dice(grounded, eighth, weights)
            total = total + losses["mask"] + weights.coarse * losses["coarse"]
            total = total + auxiliary * weights.grounding * losses["grounding"]
        return {**losses, "total": total}
