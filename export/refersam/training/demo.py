"""Auxiliary terms on the labels of drawn scenes, for a model that starts from nothing.

The labels come free with drawn scenes. They teach what is where, and what is asked for, before any mask is
right.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refersam.data.batches import Batch
from refersam.data.sample import Dataset
from refersam.data.scenes.questions import CLASSES, PICTURE_LABEL
from refersam.model import ReferSAM
from refersam.training.objective import Auxiliary, Weights, bce_and_dice

QUESTION_LABELS = tuple(name for name in CLASSES if name != PICTURE_LABEL)


def heads_for(dataset: Dataset, model: ReferSAM, weights: Weights) -> SceneHeads | None:
    """The auxiliary terms of a data set with the labels of scenes, None for any other."""
    sample = dataset[0]
    labels = {*sample.labels, *sample.questions[0].labels}
    return SceneHeads(model, weights) if labels >= set(CLASSES) else None


class SceneHeads(Auxiliary):
    """Heads, all linear: the thing at each cell of the image prefix (stride 8 and 16); the thing, reference,
    attribute and relation in the text summary; foreground or not at each stride-8 token that leaves the
    interactor.
    """

    terms = ("prefix", "text", "grounding")
    text_side = ("words.",)

    def __init__(self, model: ReferSAM, weights: Weights) -> None:
        super().__init__()
        width, text, channels = model.config.vit.width, model.config.text.width, model.config.decoder.width
        self.weights = weights
        self.cell8 = nn.Linear(width, CLASSES[PICTURE_LABEL])
        self.cell16 = nn.Linear(width, CLASSES[PICTURE_LABEL])
        self.words = nn.ModuleDict({name: nn.Linear(text, CLASSES[name]) for name in QUESTION_LABELS})
        self.grounding = nn.Linear(channels, 1)

    def prefix_losses(
        self, vit_feats: Tensor, adapter_feats: Tensor, summary: Tensor, batch: Batch
    ) -> Mapping[str, tuple[float, Tensor]]:
        return {
            "prefix": (
                self.weights.prefix,
                self.cell_loss(vit_feats, adapter_feats, batch.labels[PICTURE_LABEL]),
            ),
            "text": (self.weights.text, self.text_loss(summary, batch)),
        }

    def cell_loss(self, vit_feats: Tensor, adapter_feats: Tensor, classes: Tensor) -> Tensor:
        """Cross-entropy of the thing at each cell's centre, background at a third of the weight."""
        balance = torch.ones(CLASSES[PICTURE_LABEL], device=classes.device)
        balance[0] = 1 / 3
        at8, at16 = classes[:, 4::8, 4::8].flatten(1), classes[:, 8::16, 8::16].flatten(1)  # [B, cells]
        logits8 = self.cell8(adapter_feats[:, : at8.shape[1]])  # [B, cells, classes]
        logits16 = self.cell16(vit_feats.flatten(1, 2))
        return F.cross_entropy(logits8.flatten(0, 1), at8.flatten(), balance) + F.cross_entropy(
            logits16.flatten(0, 1), at16.flatten(), balance
        )

    def text_loss(self, summary: Tensor, batch: Batch) -> Tensor:
        terms = [F.cross_entropy(head(summary), batch.labels[name]) for name, head in self.words.items()]
        return torch.stack(terms).sum()

    def joint_losses(self, adapter_tokens: Tensor, target: Tensor) -> Mapping[str, tuple[float, Tensor]]:
        eighth = F.avg_pool2d(target[:, None], 8)[:, 0]  # [B*P, S/8, S/8]
        grounded = self.grounding(adapter_tokens[:, : eighth[0].numel()]).reshape(eighth.shape)
        return {"grounding": (self.weights.grounding, bce_and_dice(grounded, eighth, self.weights))}
