"""From the frozen networks to the tokens that words and picture share: the photo variants' interactor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention
from .candidates import BoxCode, comparisons, hottest, offsets
from .folding import constant, static_shape
from .interactor import VisionLanguageLayer
from .layers import FeedForward, layer_norm, to_map, to_tokens
from .names import ROLES, heat_code
from .photo_config import PhotoConfig
from .photo_encoders import CHANNELS, PhotoFeatures

POOL = {"target": 128, "reference": 64}
"""Cells that candidates are chosen from, by role. One large thing has the hottest 48 cells of a picture to
itself: with a pool of 48 the meant box was a candidate for 76 % of the phrases of size, with 128 for 88 %."""

COLOURS = 3
HEAT_MAPS = 7
"""Of a role at stride 16: four of stride 8, and one each of the strides 16, 32 and 32 (the classifier's)."""
BOX_MAPS = 5
"""Of a stride: the box of each cell, and the highest score of any class there."""


class Trunk(nn.Module):
    """Everything the frozen networks say of a picture, at stride 16, before any text."""

    def __init__(self, config: PhotoConfig):
        super().__init__()
        width = config.interactor.width
        names = [name for name in CHANNELS if name != "tiny8"]
        self.norms = nn.ModuleDict({name: layer_norm(CHANNELS[name]) for name in names})
        self.projections = nn.ModuleDict({name: nn.Linear(CHANNELS[name], width) for name in names})
        self.boxes = nn.Linear(6 * BOX_MAPS, width)
        self.colour = nn.Linear(COLOURS, width)
        self.position = nn.Linear(POSITIONS, width)
        self.blocks = nn.Sequential(*(ConvBlock(width) for _ in range(config.interactor.trunk_blocks)))
        self.norm = layer_norm(width)
        self.fine_norm = layer_norm(CHANNELS["tiny8"])
        self.fine = nn.Linear(CHANNELS["tiny8"], config.prompter.fine)

    def forward(self, features: PhotoFeatures, colour: Tensor) -> tuple[Tensor, Tensor]:
        """The networks' maps and the mean colour at stride 16, [B, 3, H/16, W/16]
        -> tokens [B, h·w, D] and the fine map [B, F, H/8, W/8].
        """
        size = static_shape(colour)[2:]
        position = position_maps(size[0], size[1], colour.device, colour.dtype)  # [1, h·w, 26]
        x = self.position(position) + self.colour(to_tokens(colour))
        for name, project in self.projections.items():
            tokens = project(self.norms[name](to_tokens(getattr(features, name))))
            if name == "lite32":
                tokens = to_tokens(doubled(to_map(tokens, (size[0] // 2, size[1] // 2))))
            x = x + tokens
        x = x + self.boxes(box_maps(features.scores, features.boxes, (size[0], size[1])))
        x = self.norm(to_tokens(self.blocks(to_map(x, (size[0], size[1])))))
        tiny8 = to_tokens(features.tiny8)
        fine = to_map(self.fine(self.fine_norm(tiny8)), (2 * size[0], 2 * size[1]))
        return x, fine


class ConvBlock(nn.Module):
    """A wide depthwise convolution and a feed-forward layer (Liu et al., "ConvNeXt", 2022)."""

    def __init__(self, width: int, kernel: int = 7, ratio: int = 2):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = layer_norm(width)
        self.mlp = FeedForward(width, ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]"""
        y = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        return x + y.permute(0, 3, 1, 2)


class ReasonerLayer(nn.Module):
    """Self-attention and a feed-forward layer, norms first."""

    def __init__(self, width: int, heads: int, ratio: int):
        super().__init__()
        self.norm1, self.norm2 = layer_norm(width), layer_norm(width)
        self.attn = Attention(width, width, width, heads)
        self.mlp = FeedForward(width, ratio * width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, S, D], bool [B, S] -> [B, S, D]"""
        y = self.norm1(x)
        x = x + self.attn(y, y, y, mask)
        return x + self.mlp(self.norm2(x))


class Candidates(nn.Module):
    """The boxes that a phrase may mean, as tokens: geometry, heat, and what the picture shows there."""

    def __init__(self, config: PhotoConfig):
        super().__init__()
        width = config.interactor.width
        self.counts = (config.interactor.targets, config.interactor.references)
        self.code = BoxCode()
        self.geometry = nn.Linear(BoxCode.width, width)
        self.heat = nn.Linear(1, width)
        self.among = nn.Linear(12, width)
        self.look = nn.Linear(width, width)
        self.roles = nn.Embedding(len(ROLES), width)
        self.norm = layer_norm(width)

    def forward(self, heat: Tensor, boxes: Tensor, visual: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Heat of the roles [B, 2, N], boxes [B, 4, N], picture tokens [B, h·h, D] or None
        -> candidate tokens [B, K, D], their boxes [B, K, 4] and heat [B, K]; the target's come first.
        """
        chosen = [
            hottest(heat[:, role], boxes, count, POOL[name])
            for role, (name, count) in enumerate(zip(ROLES, self.counts, strict=True))
        ]
        hot = torch.cat([one for one, _ in chosen], 1)
        own = torch.cat([two for _, two in chosen], 1).clamp(0, 1)
        targets = self.counts[0]
        among = torch.cat(
            [
                torch.cat([comparisons(own[:, part], hot[:, part]) for part in self.parts], 1),
                offsets(own, own[:, targets:], hot[:, targets:]),
            ],
            2,
        )
        role = torch.cat(
            [self.roles.weight[i : i + 1].expand(count, -1) for i, count in enumerate(self.counts)]
        )
        tokens = self.geometry(self.code(own)) + self.heat(heat_code(hot)[..., None]) + role
        tokens = tokens + self.among(among)
        if visual is not None:
            tokens = tokens + self.look(self._seen(own, visual))
        return self.norm(tokens), own, hot

    @property
    def parts(self) -> tuple[slice, slice]:
        """The targets and the references among the candidates."""
        return slice(0, self.counts[0]), slice(self.counts[0], sum(self.counts))

    @staticmethod
    def _seen(boxes: Tensor, visual: Tensor) -> Tensor:
        """The picture's tokens at the centres of boxes: [B, K, 4], [B, h·h, D] -> [B, K, D]."""
        side = int(static_shape(visual)[1] ** 0.5)
        centre = ((boxes[..., :2] + boxes[..., 2:]) / 2 * side).floor().clamp(0, side - 1)
        cells = (centre[..., 1] * side + centre[..., 0]).long()
        return visual.gather(1, cells[..., None].expand(-1, -1, static_shape(visual)[2]))


class PhotoInteractor(nn.Module):
    """Words, candidates and picture read one another, on top of the frozen networks."""

    def __init__(self, config: PhotoConfig):
        super().__init__()
        own = config.interactor
        width = own.width
        self.heat = nn.Linear(len(ROLES) * HEAT_MAPS, width)
        self.lang = nn.Linear(config.text_width, width)
        self.lang_norm = layer_norm(width)
        self.context = nn.Embedding(own.context_tokens, width)
        self.candidates = Candidates(config)
        self.reasoner = nn.ModuleList(
            ReasonerLayer(width, own.heads, own.ffn_ratio) for _ in range(own.reasoner_layers)
        )
        self.layers = nn.ModuleList(
            VisionLanguageLayer(width, width, width, own.heads, own.ffn_ratio, levels=1)
            for _ in range(own.layers)
        )
        self.between = nn.ModuleList(ConvBlock(width, ratio=1) for _ in range(own.layers - 1))
        self.position = nn.Linear(POSITIONS, width)
        self.choice = nn.Sequential(
            layer_norm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
        )

    def forward(
        self, visual: Tensor, lang: Tensor, mask: Tensor, heat: Tensor, weak: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Picture tokens [B, h·h, D], word features [B, L, text], bool [B, L], heat of the roles at the
        detector's cells [B, 2, N] and the classifier's [B, 2, M] (`ClassHeat`), boxes [B, 4, N]
        -> picture tokens [B, h·h, D]; words, context and candidates [B, S, D], in this order; the candidates'
        boxes, heat and first choice [B, K, 6]; heat maps at stride 8, [B, 6, 2h, 2h].
        """
        side = int(static_shape(visual)[1] ** 0.5)
        small, seen, found, choice = self.reason(lang, mask, heat, boxes, visual)
        position = self.position(position_maps(side, side, visual.device, visual.dtype))
        at16, at8 = heat_maps(heat, weak, side)
        x = visual + self.heat(at16)
        for index, layer in enumerate(self.layers):
            if index:
                x = to_tokens(self.between[index - 1](to_map(x, (side, side))))
            x, small = layer(x, position, small, seen, (side * side,))
        return x, small, torch.cat([found, choice], 2), at8

    def reason(
        self, lang: Tensor, mask: Tensor, heat: Tensor, boxes: Tensor, visual: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What words and boxes say before any look at the picture, or with a look at the candidates alone
        -> words, context and candidates [B, S, D], bool [B, S]; the candidates' boxes and heat [B, K, 5], and
        their choice logits [B, K, 1].
        """
        tokens, found, hot = self.candidates(heat, boxes, visual)
        words = self.lang_norm(self.lang(lang))
        context = self.context.weight + 0 * words[:, :1]
        small = torch.cat([words, context, tokens], 1)
        rest = torch.ones_like(torch.cat([context, tokens], 1)[..., 0], dtype=torch.bool)
        seen = torch.cat([mask, rest], 1)
        for layer in self.reasoner:
            small = layer(small, seen)
        first = static_shape(small)[1] - static_shape(tokens)[1]
        choice = self.choice(small[:, first:])
        return small, seen, torch.cat([found, hot[..., None]], 2), choice


def heat_maps(heat: Tensor, weak: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Heat of the roles at the detector's cells [B, 2, N] and the classifier's [B, 2, M], for a grid of
    `side` at stride 16 -> tokens [B, side², 14] and maps at stride 8, [B, 6, 2·side, 2·side] (target first).
    """
    eight, sixteen, thirty_two = levels_of(heat_code(heat), side)
    weak = heat_code(weak).reshape(-1, len(ROLES), side // 2, side // 2)
    middle = torch.cat([doubled(torch.cat([thirty_two, weak], 1)), sixteen], 1)  # [B, 6, side, side]
    at16 = torch.cat([unshuffled(eight), middle], 1)  # [B, 8 + 6, side, side]
    target = torch.cat([middle[:, 0:1], middle[:, 4:5]], 1)
    at8 = torch.cat([eight, doubled(torch.cat([target, middle[:, 1:2], middle[:, 2:3]], 1))], 1)
    return to_tokens(at16), at8


def levels_of(cells: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """[B, C, N] -> maps of strides 8, 16 and 32, `side` being the grid of stride 16."""
    sides = (2 * side, side, side // 2)
    channels = static_shape(cells)[1]
    parts = cells.split([length * length for length in sides], 2)
    eight, sixteen, thirty_two = (
        part.reshape(-1, channels, length, length) for part, length in zip(parts, sides, strict=True)
    )
    return eight, sixteen, thirty_two


def box_maps(scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The box of each cell, and its highest score, as tokens of stride 16: [B, h·w, 6·5]."""
    best = heat_code(scores.amax(1, keepdim=True).sigmoid())
    eight, sixteen, thirty_two = levels_of(torch.cat([boxes, best], 1), size[0])
    repeated = F.interpolate(thirty_two, scale_factor=2.0, mode="nearest")
    return to_tokens(torch.cat([unshuffled(eight), sixteen, repeated], 1))


def unshuffled(x: Tensor) -> Tensor:
    """[B, C, 2h, 2w] -> [B, 4·C, h, w]"""
    _, channels, rows, columns = static_shape(x)
    x = x.reshape(-1, channels, rows // 2, 2, columns // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(-1, 4 * channels, rows // 2, columns // 2)


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


POSITIONS = 26
"""Numbers that say where a cell is: x and y, and six waves of each."""


@constant
def position_maps(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[1, rows·columns, POSITIONS]"""
    y, x = torch.meshgrid(
        (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij"
    )
    where = torch.stack([x, y], -1).reshape(-1, 2)
    angles = (where[..., None] * torch.pi * 2.0 ** torch.arange(6)).flatten(1)
    return torch.cat([where, angles.sin(), angles.cos()], -1)[None].to(device, dtype)
