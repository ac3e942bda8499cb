"""ReferSAM: a picture and a phrase in, the logits of a mask out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from .adapter import VLAdapter
from .config import ReferSAMConfig
from .deformable import SAMPLERS, DeformableAttention
from .folding import static_shape
from .grid import Grid
from .initial import initialise, initialise_adapter
from .layers import layer_norm, masks_of
from .prompt_encoder import PromptEncoder
from .sam_decoder import MaskDecoder
from .text import build_text_encoder


class Output(NamedTuple):
    logits: Tensor
    """[B, H, W]; foreground where >= 0."""
    low_res_logits: Tensor
    """[B, 1, H/4, W/4]; `logits` is this, upsampled."""
    coarse_logits: Tensor
    """[B, 1, H/4, W/4]: the prompter's mask, for the loss and as a sign of agreement."""


class ReferSAM(nn.Module):
    """Liu et al., "ReferSAM: Unleashing Segment Anything Model for Referring Image Segmentation" (2025).

    `forward` composes five stages that are exported, and may be called, one by one. Letters in shapes:
    B samples, L text tokens, h = H/16, w = W/16, D the ViT's width, C the decoder's, P sparse prompts and
    A = 4hw + hw + hw/4 adapter tokens.
    """

    def __init__(self, config: ReferSAMConfig):
        super().__init__()
        width = config.decoder.width
        self.config = config
        self.text_encoder = build_text_encoder(config.text)
        self.vl_adapter = VLAdapter(config)
        self.sam_prompt_encoder = PromptEncoder(config.decoder)
        self.sam_mask_decoder = MaskDecoder(config.decoder)
        self.mask_embedding = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.mask_scaling = nn.Conv2d(1, 1, 1)
        self.sparse_embedding = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), layer_norm(width)
        )
        initialise_adapter(self.vl_adapter)
        initialise(self.mask_embedding)
        initialise(self.sparse_embedding)
        nn.init.ones_(self.mask_scaling.weight)
        nn.init.zeros_(self.mask_scaling.bias)

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Output:
        """image [B, 3, H, W], normalised with ImageNet's mean and deviation, H and W multiples of 32;
        input_ids [B, L]; attention_mask [B, L], 1 or true for real tokens, bool, integer or float.

        A sample whose mask is all zeros gives NaN. Raises ValueError on other picture sizes.
        """
        vit_feats, adapter_feats, c1 = self.image_prefix(image)
        lang_feats = self.text(input_ids, attention_mask)
        adapter_tokens, lang_tokens, image_embeddings = self.vli(
            vit_feats, adapter_feats, lang_feats, attention_mask
        )
        sparse, mask_prompt, coarse = self.vlp(adapter_tokens, lang_tokens, attention_mask, c1)
        low_res = self.decoder(image_embeddings, sparse, mask_prompt)
        return Output(self.upsample(low_res), low_res, coarse)

    def text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, L], [B, L] -> lang_feats [B, L, text width]. Features of padding are defined and unused."""
        return self.text_encoder(input_ids, attention_mask != 0)

    def image_prefix(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] -> vit_feats [B, h, w, D], adapter_feats [B, A, D], c1 [B, c, H/4, W/4].

        Independent of the text: several phrases about one picture share it.
        """
        return self.vl_adapter.prefix(image)

    def vli(
        self, vit_feats: Tensor, adapter_feats: Tensor, lang_feats: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> adapter_tokens [B, A, C], lang_tokens [B, L, C], image_embeddings [B, C, h, w]."""
        return self.vl_adapter.interact(vit_feats, adapter_feats, lang_feats, attention_mask != 0)

    def vlp(
        self, adapter_tokens: Tensor, lang_tokens: Tensor, attention_mask: Tensor, c1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> sparse_prompts [B, P, C], mask_prompt and coarse_logits [B, 1, H/4, W/4]."""
        tokens, pixels = self.vl_adapter.prompt(adapter_tokens, lang_tokens, attention_mask != 0, c1)
        coarse = masks_of(self.mask_embedding(tokens[:, :1]), pixels)
        return self.sparse_embedding(tokens[:, 1:]), self.mask_scaling(coarse), coarse

    def decoder(self, image_embeddings: Tensor, sparse_prompts: Tensor, mask_prompt: Tensor) -> Tensor:
        """-> low_res_logits [B, 1, H/4, W/4]."""
        grid = Grid(*static_shape(image_embeddings)[-2:])
        position = self.sam_prompt_encoder.pe_layer(grid)
        dense = self.sam_prompt_encoder(mask_prompt)
        return self.sam_mask_decoder(image_embeddings, position, sparse_prompts, dense)

    @staticmethod
    def upsample(low_res_logits: Tensor) -> Tensor:
        """[B, 1, H/4, W/4] -> [B, H, W]. Corners map to corners, unlike every other resize of the model."""
        height, width = static_shape(low_res_logits)[-2:]
        size = (4 * height, 4 * width)
        return F.interpolate(low_res_logits, size, mode="bilinear", align_corners=True)[:, 0]

    def set_sampler(self, sampler: str) -> None:
        """How deformable attention reads its values: `gather` (exported, the default) or `grid_sample`."""
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r}; allowed: {', '.join(SAMPLERS)}")
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.sampler = sampler
