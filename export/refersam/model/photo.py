"""The photo model: ReferSAM's stages around frozen pretrained networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folding import static_shape
from .grid import Grid
from .names import ClassHeat, NameReader
from .photo_adapter import PhotoInteractor, Trunk
from .photo_config import PhotoConfig
from .photo_encoders import PhotoEncoders, PhotoFeatures
from .photo_prompter import PhotoPrompter, PromptCodes
from .prompt_encoder import PromptEncoder
from .sam_decoder import MaskDecoder
from .text import build_text_encoder

PRESENCE_SLOPE = 20.0
"""No logit of a mask is above this times the presence logit (less its cut)."""
MASK_LIMIT = 10.0
"""The mask prompt stays within plus and minus this."""


class PictureTensors(NamedTuple):
    """What the image stage gives, independent of any phrase."""

    tokens: Tensor
    """[B, h·w, D], stride 16"""
    fine: Tensor
    """[B, F, H/8, W/8]"""
    embedding: Tensor
    """[B, 256, h, w]"""
    scores: Tensor
    """[B, 80, N]: logits of the detector's classes, cells of strides 8, 16, 32 in a row"""
    classes: Tensor
    """[B, 1000, M]: logits of the classifier's classes, cells of stride 32"""
    boxes: Tensor
    """[B, 4, N]"""


class PhotoOutput(NamedTuple):
    low_res_logits: Tensor
    """[B, H/4, W/4]; foreground where >= 0, empty when the thing is not there"""
    mask_logits: Tensor
    """[B, H/4, W/4]: the decoder's own, before presence"""
    coarse_logits: Tensor
    """[B, H/8, W/8]"""
    presence: Tensor
    """[B, 1]"""
    choice: Tensor
    """[B, targets]"""
    found: Tensor
    """[B, candidates, 6]: boxes, heat and first choice"""


class PhotoSAM(nn.Module):
    """Five stages as in `ReferSAM`: text, image, vli, vlp, decoder, with other tensors between them.

    The image encoder is frozen and pretrained, so the text cannot enter it; words and picture meet behind it.
    """

    def __init__(self, config: PhotoConfig):
        super().__init__()
        self.config = config
        self.text_encoder = build_text_encoder(config.text)
        narrow = config.text.width != config.text_width
        self.text_proj = nn.Linear(config.text.width, config.text_width) if narrow else nn.Identity()
        self.name_reader = NameReader(config.text_width)
        self.encoders = PhotoEncoders()
        self.trunk = Trunk(config)
        self.class_heat = ClassHeat()
        self.interactor = PhotoInteractor(config)
        self.prompter = PhotoPrompter(config)
        self.sam_prompt_encoder = PromptEncoder(config.decoder)
        self.sam_mask_decoder = MaskDecoder(config.decoder)
        self.prompt_codes = PromptCodes(config)
        # How much of the coarse mask's logits is added to the decoder's.
        self.coarse_share = nn.Parameter(torch.tensor(0.3))
        for module in (self.encoders, self.sam_prompt_encoder):
            module.requires_grad_(False)

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PhotoOutput:
        """image [B, 3, H, W], normalised with ImageNet's mean and deviation, H = W a multiple of 32;
        input_ids and attention_mask [B, L]. A sample whose mask is all zeros gives NaN.
        """
        lang, names = self.text(input_ids, attention_mask)
        return self.answer(self.image_prefix(image), lang, names, attention_mask)

    def answer(self, picture: PictureTensors, lang: Tensor, names: Tensor, mask: Tensor) -> PhotoOutput:
        """The stages from the interactor on."""
        visual, small, found, heat = self.vli(
            picture.tokens, lang, mask, names, picture.scores, picture.classes, picture.boxes
        )
        coarse, learned, presence, choice, box = self.prompter(
            visual, small, mask != 0, found, heat, picture.fine
        )
        sparse, mask_prompt, coarse4 = self.prompts(coarse, learned, box)
        logits = self.decode(picture.embedding, sparse, mask_prompt, coarse4)
        return PhotoOutput(self.gated(logits, presence), logits, coarse, presence, choice, found)

    def text(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L] twice -> word features [B, L, text width] and logits of the names (`NameReader`)."""
        mask = attention_mask != 0
        lang = self.text_proj(self.text_encoder(input_ids, mask))
        return lang, self.name_reader(lang, mask)

    def image_prefix(self, image: Tensor) -> PictureTensors:
        """[B, 3, H, W] -> what does not depend on the phrase."""
        return self.from_features(self.encoders(image), self.colour(image))

    def from_features(self, features: PhotoFeatures, colour: Tensor) -> PictureTensors:
        """The same from the frozen networks' maps, which training keeps on disk."""
        tokens, fine = self.trunk(features, colour)
        classes = self.encoders.classify(features.lite32)
        return PictureTensors(tokens, fine, features.embedding, features.scores, classes, features.boxes)

    @staticmethod
    def colour(image: Tensor) -> Tensor:
        """Mean colour of the patches, [B, 3, H/16, W/16]."""
        return F.avg_pool2d(image, 16)

    def vli(
        self,
        visual: Tensor,
        lang: Tensor,
        mask: Tensor,
        names: Tensor,
        scores: Tensor,
        classes: Tensor,
        boxes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `PhotoInteractor`."""
        heat, weak = self.class_heat(names, scores, classes)
        return self.interactor(visual, lang, mask != 0, heat, weak, boxes)

    def vlp(
        self, visual: Tensor, small: Tensor, mask: Tensor, found: Tensor, heat: Tensor, fine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> sparse prompts [B, 2 + P, C], mask prompt [B, 1, H/4, W/4], coarse logits [B, H/4, W/4],
        presence logit [B, 1].
        """
        coarse, learned, presence, _, box = self.prompter(visual, small, mask != 0, found, heat, fine)
        return *self.prompts(coarse, learned, box), presence

    def prompts(self, coarse: Tensor, learned: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse logits, learned tokens, box -> sparse prompts, mask prompt, coarse logits of stride 4."""
        quarter = F.interpolate(coarse[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)
        sparse = self.prompt_codes.sparse(self.sam_prompt_encoder, box, learned)
        return sparse, quarter.clamp(-MASK_LIMIT, MASK_LIMIT), quarter[:, 0]

    def decoder(
        self, embedding: Tensor, sparse: Tensor, mask_prompt: Tensor, coarse: Tensor, presence: Tensor
    ) -> Tensor:
        """-> low_res_logits [B, H/4, W/4]."""
        return self.gated(self.decode(embedding, sparse, mask_prompt, coarse), presence)

    def decode(self, embedding: Tensor, sparse: Tensor, mask_prompt: Tensor, coarse: Tensor) -> Tensor:
        """The decoder's logits with a share of the coarse ones, [B, H/4, W/4]."""
        grid = Grid(*static_shape(embedding)[-2:])
        position = self.sam_prompt_encoder.pe_layer(grid)
        dense = self.prompt_codes.dense(self.sam_prompt_encoder, mask_prompt)
        fine = self.sam_mask_decoder(embedding, position, sparse, dense)[:, 0]
        return fine + self.coarse_share * coarse.clamp(-MASK_LIMIT, MASK_LIMIT)

    def gated(self, logits: Tensor, presence: Tensor) -> Tensor:
        """Masks of things that are not there become empty: no pixel is surer than the thing is there."""
        bound = (presence - self.config.presence_cut) * PRESENCE_SLOPE
        return torch.minimum(logits - self.config.mask_cut, bound[..., None])


def start(model: PhotoSAM) -> None:
    """Initial values for the parts between the frozen networks: livelier than the published ones.

    Matrices N(0, 0.49 / fan-in), biases 0, embeddings N(0, 0.1²). The published 0.02 left the candidates'
    geometry at a fiftieth of the role embeddings beside it: after 60,000 phrases the model could not tell
    left from right.
    """
    for part in (model.trunk, model.interactor, model.prompter):
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.7 / module.in_features**0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
    model.prompter.reset()
