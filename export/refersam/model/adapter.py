"""The image encoder with the interactor inside it and the prompter behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ReferSAMConfig
from .folding import constant, folded, static_shape
from .grid import Grid, sine_code
from .interactor import Interaction
from .layers import group_norm, layer_norm, to_map
from .prompter import PromptLayer
from .spatial_prior import SpatialPrior
from .vit import ImageEncoder


class VLAdapter(nn.Module):
    """Holds every part that turns picture and text features into prompts and an image embedding."""

    def __init__(self, config: ReferSAMConfig):
        super().__init__()
        visual, text, width = config.vit.width, config.text.width, config.decoder.width
        prior, sparse = config.adapter.prior_width, config.prompter.sparse_tokens
        self.stages = config.vit.stages
        self.text_kind = config.text.kind

        self.vis_model = ImageEncoder(config.vit, width)
        self.spm = SpatialPrior(prior, visual)
        self.level_embed = nn.Parameter(torch.empty(3, visual))
        self.lang_prompts = nn.Embedding(config.adapter.context_tokens, text)
        self.interactions = nn.ModuleList(Interaction(config, extra_pairs=0) for _ in self.stages[:-1])
        self.interactions.append(Interaction(config, config.adapter.extra_pairs))
        self.adapter_proj = nn.ModuleList(
            nn.Sequential(nn.Linear(visual, width), layer_norm(width)) for _ in range(3)
        )
        self.lang_proj = nn.Sequential(
            nn.Linear(text, width), nn.GELU(), nn.Linear(width, width), layer_norm(width)
        )

        self.sparse_prompts = nn.Embedding(sparse, width)
        self.prompt_pos = nn.Embedding(1 + sparse, width)
        self.level_embed_prompter = nn.Parameter(torch.empty(3, width))
        prompter = config.prompter
        self.prompt_blocks = nn.ModuleList(
            PromptLayer(width, prompter.heads, prompter.ffn_ratio) for _ in range(prompter.layers)
        )
        self.c1_conv = nn.Conv2d(prior, width, 1, bias=False)
        self.c1_norm = group_norm(width)
        self.out_conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            group_norm(width),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
        )

    def prefix(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What does not depend on the text: [B, 3, H, W] -> ViT tokens, adapter tokens, stride-4 map."""
        grid = Grid.of_image(image)
        c1, adapter = self.spm(image)
        vit = self.vis_model.embed(image)
        vit, adapter = self.interactions[0].visual(vit, adapter, self._blocks(0), grid)
        return vit, adapter, c1

    def interact(
        self, vit: Tensor, adapter: Tensor, lang: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The interactor from the first vision-language layer on.

        ViT tokens [B, h, w, D], adapter tokens [B, A, D], text features [B, L, text], bool [B, L]
        -> projected adapter tokens [B, A, C], text tokens [B, L, C], image embedding [B, C, h, w].
        """
        grid = Grid(*static_shape(vit)[1:3])
        length = static_shape(lang)[1]
        position = folded(lambda: self.adapter_position(grid))
        text = lang
        if self.lang_prompts.num_embeddings:
            # Adding a zero slice of the text carries the batch size without a shape computation in the graph.
            context = self.lang_prompts.weight + 0 * lang[:, :1]
            mask = torch.cat([mask, torch.ones_like(context[..., 0], dtype=torch.bool)], 1)
            text = torch.cat([lang, context], 1)
        for stage, interaction in enumerate(self.interactions):
            if stage > 0:
                vit, adapter = interaction.visual(vit, adapter, self._blocks(stage), grid)
            adapter, text = interaction.fuse(vit, adapter, position, text, mask, grid)

        levels = adapter.split(grid.level_tokens, 1)
        levels = [project(tokens) for project, tokens in zip(self.adapter_proj, levels, strict=True)]
        stride16 = to_map(levels[1], grid.vit)
        embedding = self.vis_model.neck(vit.permute(0, 3, 1, 2)) + stride16
        return torch.cat(levels, 1), self.lang_proj(text[:, :length]), embedding

    def prompt(self, adapter: Tensor, lang: Tensor, mask: Tensor, c1: Tensor) -> tuple[Tensor, Tensor]:
        """Projected adapter tokens [B, A, C], text tokens [B, L, C], bool [B, L], stride-4 map
        -> prompt tokens [B, 1 + P, C] (the dense one first), pixel features [B, C, H/4, W/4].
        """
        height, width = static_shape(c1)[-2:]
        grid = Grid(height // 4, width // 4)
        summary = self.summary(lang, mask).detach()
        tokens = torch.cat([summary, self.sparse_prompts.weight + 0 * summary], 1)
        keys = adapter + folded(lambda: self.prompter_position(grid))
        for layer in self.prompt_blocks:
            tokens = layer(tokens, self.prompt_pos.weight, adapter, keys, lang, mask, grid.level_tokens)
        return tokens, self._pixel_feature(adapter, c1, grid)

    def adapter_position(self, grid: Grid) -> Tensor:
        """Sine code and level embedding of the adapter tokens, [1, A, D]."""
        return _position(self.level_embed, grid)

    def prompter_position(self, grid: Grid) -> Tensor:
        """The prompter's own, [1, A, C]."""
        return _position(self.level_embed_prompter, grid)

    def _blocks(self, stage: int) -> nn.ModuleList:
        first, last = self.stages[stage]
        return self.vis_model.blocks[first : last + 1]

    def summary(self, lang: Tensor, mask: Tensor) -> Tensor:
        """The token that stands for the whole text, [B, 1, C]: BERT's [CLS] or CLIP's end of text.

        CLIP's is the last position of the mask, which must be ones, then zeros. It is picked by a product
        with a one-hot row rather than by an index that depends on the data.
        """
        if self.text_kind == "bert":
            return lang[:, :1]
        counted = mask.to(lang.dtype).sum(1, keepdim=True)
        chosen = token_numbers(static_shape(lang)[1], lang.device, lang.dtype) == counted
        return chosen.to(lang.dtype)[:, None] @ lang

    def _pixel_feature(self, adapter: Tensor, c1: Tensor, grid: Grid) -> Tensor:
        stride8 = to_map(adapter[:, : grid.level_tokens[0]], grid.levels[0])
        upsampled = F.interpolate(stride8, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.out_conv(self.c1_norm(self.c1_conv(c1)) + upsampled)


def _position(level_embed: Tensor, grid: Grid) -> Tensor:
    code = sine_code(grid.levels, level_embed.shape[1], level_embed.device, level_embed.dtype)
    levels = [embed.expand(tokens, -1) for embed, tokens in zip(level_embed, grid.level_tokens, strict=True)]
    return code + torch.cat(levels)


@constant
def token_numbers(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """1, 2, … length"""
    return torch.arange(1, length + 1, device=device, dtype=dtype)
