"""From words, candidates and picture to prompts: the photo variants' prompter."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .candidates import box_around, box_of, painted
from .folding import static_shape
from .layers import to_map
from .names import heat_code
from .photo_adapter import POSITIONS, doubled, position_maps
from .photo_config import PhotoConfig
from .prompt_encoder import PromptEncoder
from .prompter import PromptLayer

CODE = 8
"""Channels of a correlation."""
HEAT8 = 6
"""Heat maps at stride 8, see `photo_adapter.heat_maps`."""
PAINTED = 2
"""Maps painted of the candidates: those that are chosen, and those that are not."""


class PhotoPrompter(nn.Module):
    """The dense prompt token makes the coarse mask, the sparse ones go to the decoder."""

    def __init__(self, config: PhotoConfig):
        super().__init__()
        own, width = config.prompter, config.interactor.width
        self.targets = config.interactor.targets
        self.candidates = config.interactor.targets + config.interactor.references
        self.box_cut = own.box_cut
        self.tokens = nn.Embedding(1 + own.sparse_tokens, width)
        self.positions = nn.Embedding(1 + own.sparse_tokens, width)
        self.blocks = nn.ModuleList(
            PromptLayer(width, own.heads, config.interactor.ffn_ratio, levels=1) for _ in range(own.layers)
        )
        self.position = nn.Linear(POSITIONS, width)
        self.choice = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.keys = nn.Linear(width, own.correlations * CODE)
        self.query = nn.Linear(width, own.correlations * CODE)
        maps = own.correlations + HEAT8 + PAINTED + own.fine + 2
        self.mix = nn.Conv2d(maps, own.mixed, 3, padding=1)
        self.wide = nn.Conv2d(own.mixed, own.mixed, 5, padding=4, dilation=2, groups=own.mixed)
        self.across = nn.Linear(own.mixed, own.mixed)
        self.gate = nn.Linear(2 * own.mixed, own.mixed)
        self.out = nn.Conv2d(own.mixed, 1, 3, padding=1)
        self.presence_token = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.presence_maps = nn.Linear(2 * own.mixed + 3, 1)
        self.sparse = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.decoder.width)
        )
        self.reset()

    def reset(self) -> None:
        """Masks start empty; the second choice and the learned prompts start without a say."""
        nn.init.constant_(self.out.bias, -1.5)
        for last in (self.sparse[2], self.choice[2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, visual: Tensor, small: Tensor, mask: Tensor, found: Tensor, heat: Tensor, fine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Picture tokens [B, h·h, D], words, context and candidates [B, S, D], bool [B, L] of the words,
        candidates' boxes, heat and first choice [B, K, 6], heat maps [B, 6, 2h, 2h], fine map [B, F, 2h, 2h]
        -> coarse logits [B, 2h, 2h], sparse tokens [B, P, C], presence logit [B, 1], choice logits of the
        target's candidates [B, targets], and the box for the decoder [B, 4]: around the candidates that are
        chosen, or around the coarse mask where there are none.
        """
        side = int(static_shape(visual)[1] ** 0.5)
        length, words = static_shape(small)[1], static_shape(mask)[1]
        rest = torch.ones_like(small[:, words:, 0], dtype=torch.bool)
        seen = torch.cat([mask, rest], 1)
        tokens = self.tokens.weight + 0 * small[:, :1]
        keys = visual + self.position(position_maps(side, side, visual.device, visual.dtype))
        for block in self.blocks:
            tokens = block(tokens, self.positions.weight, visual, keys, small, seen, (side * side,))

        first = length - self.candidates
        boxes, hot = found[:, : self.targets, :4], found[:, : self.targets, 4]
        choice = found[:, : self.targets, 5] + self.choice(small[:, first : first + self.targets])[..., 0]
        real = (hot > 1e-3).to(choice.dtype)
        chosen = choice.sigmoid() * real
        maps = torch.cat(
            [
                doubled(self._correlations(tokens[:, 0], visual, side)),
                heat,
                painted(boxes, chosen, 2 * side)[:, None],
                painted(boxes, real - chosen, 2 * side)[:, None],
                fine,
                _plain_position(2 * side, visual) + 0 * heat[:, :2],
            ],
            1,
        )
        z = F.gelu(self.mix(maps))
        pooled = torch.cat([z.mean((2, 3)), z.amax((2, 3))], 1)
        y = self.across(self.wide(z).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        z = F.gelu(y + self.gate(pooled)[..., None, None])
        coarse = self.out(z)[:, 0]
        pooled = torch.cat([z.mean((2, 3)), z.amax((2, 3))], 1)
        summary = torch.stack([chosen.amax(1), heat_code(hot.amax(1)), heat_code((hot * chosen).amax(1))], 1)
        presence = self.presence_token(tokens[:, 0]) + self.presence_maps(torch.cat([pooled, summary], 1))
        box = box_around(boxes, chosen, box_of(coarse, self.box_cut))
        return coarse, self.sparse(tokens[:, 1:]), presence, choice, box

    def _correlations(self, query: Tensor, visual: Tensor, side: int) -> Tensor:
        """[B, D], [B, h·h, D] -> [B, maps, h, h]: the map of each group of CODE channels."""
        keys = to_map(self.keys(visual), (side, side))
        product = keys * self.query(query)[..., None, None]
        groups = static_shape(product)[1] // CODE
        return product.reshape(-1, groups, CODE, side, side).sum(2) / math.sqrt(CODE)


def _plain_position(side: int, like: Tensor) -> Tensor:
    """x and y of the cells, [1, 2, side, side]."""
    return to_map(position_maps(side, side, like.device, like.dtype)[..., :2], (side, side))


class PromptCodes(nn.Module):
    """What SAM's decoder reads of the prompter: corners of a box, learned tokens, and the coarse mask."""

    def __init__(self, config: PhotoConfig):
        super().__init__()
        # How much the mask prompt moves the decoder from "no mask", per channel. It starts at nothing,
        # because a box without a mask is what the decoder does best before it is trained further.
        self.mask_share = nn.Parameter(torch.zeros(config.decoder.width))

    @staticmethod
    def sparse(encoder: PromptEncoder, box: Tensor, learned: Tensor) -> Tensor:
        """[B, 4], [B, P, C] -> [B, 2 + P, C]: top left, bottom right, and the learned ones, which start as
        SAM's "not a point".
        """
        corners = torch.stack([box[:, :2], box[:, 2:]], 1)  # [B, 2, (x, y)]
        angle = 2 * math.pi * ((2 * corners - 1) @ encoder.pe_layer.positional_encoding_gaussian_matrix)
        code = torch.cat([angle.sin(), angle.cos()], -1)
        kinds = torch.cat([encoder.point_embeddings[2].weight, encoder.point_embeddings[3].weight])
        return torch.cat([code + kinds, learned + encoder.not_a_point_embed.weight], 1)

    def dense(self, encoder: PromptEncoder, mask_prompt: Tensor) -> Tensor:
        """[B, 1, H/4, W/4] -> [B, C, h, w]"""
        empty = encoder.no_mask_embed.weight[0][:, None, None]
        return empty + self.mask_share[:, None, None] * (encoder(mask_prompt) - empty)
