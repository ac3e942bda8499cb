"""The five stages of a ReferSAM ensemble, as modules. Their arguments and results are the stages' tensors.

The cut follows what a request needs: the text and the image prefix depend on one input alone, everything from
the interactor on depends on both. Normalisation lives in the image stage, so pixels cross the wire as bytes;
masks leave at a quarter of the input's side, so the gateway scales them once, to the picture's own size.

In the comments B is the batch, S the input's side, h = w = S/16, L the number of tokens, A the number of
adapter tokens, D the width of the image encoder, C the width of the decoder, c the width of the spatial
prior's first map and P the number of sparse prompts. A model with P = 0 has no tensor `sparse_prompts`,
because no dimension of a tensor that Triton passes on may be 0.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from refersam.data.transforms import normalise
from refersam.model import ReferSAM
from refersam.model.layers import to_tokens
from refersam.model.photo import PhotoSAM

SPARSE = "sparse_prompts"


class Stage(nn.Module):
    """Part of a model that is served by itself.

    `inputs` and `outputs` name the arguments and results of `forward`, in order. A name means the same tensor
    in every stage.
    """

    name: ClassVar[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class PlainStage(Stage):
    """A stage of a `ReferSAM`."""

    model: ReferSAM

    def __init__(self, model: ReferSAM) -> None:
        super().__init__(model)
        if not model.config.prompter.sparse_tokens:
            self.inputs = tuple(name for name in self.inputs if name != SPARSE)
            self.outputs = tuple(name for name in self.outputs if name != SPARSE)


class TextStage(PlainStage):
    """Phrase to word features."""

    name = "text"
    inputs = ("input_ids", "attention_mask")
    outputs = ("lang_feats",)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        # int32 [B, L], int32 [B, L] -> [B, L, text width]
        return (self.model.text(input_ids, attention_mask),)


class ImageStage(PlainStage):
    """Pixels to all that does not depend on the phrase."""

    name = "image"
    inputs = ("image",)
    outputs = ("vit_feats", "adapter_feats", "c1")

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # uint8 [B, S, S, 3] -> [B, h, w, D], [B, A, D], [B, c, S/4, S/4]
        return self.model.image_prefix(normalise(image))


class InteractorStage(PlainStage):
    """Vision-Language Interactor: image and phrase read one another."""

    name = "vli"
    inputs = ("vit_feats", "adapter_feats", "lang_feats", "attention_mask")
    outputs = ("adapter_tokens", "lang_tokens", "image_embeddings")

    def forward(
        self, vit_feats: Tensor, adapter_feats: Tensor, lang_feats: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        # -> [B, A, C], [B, L, C], [B, C, h, w]
        return self.model.vli(vit_feats, adapter_feats, lang_feats, attention_mask)


class PrompterStage(PlainStage):
    """Vision-Language Prompter: sparse prompts and a coarse mask."""

    name = "vlp"
    inputs = ("adapter_tokens", "lang_tokens", "attention_mask", "c1")
    outputs = (SPARSE, "mask_prompt", "coarse_logits")

    def forward(
        self, adapter_tokens: Tensor, lang_tokens: Tensor, attention_mask: Tensor, c1: Tensor
    ) -> tuple[Tensor, ...]:
        # -> [B, P, C] unless P = 0, [B, 1, S/4, S/4], [B, S/4, S/4]
        sparse, mask, coarse = self.model.vlp(adapter_tokens, lang_tokens, attention_mask, c1)
        return (sparse, mask, coarse[:, 0]) if SPARSE in self.outputs else (mask, coarse[:, 0])


class DecoderStage(PlainStage):
    """SAM's mask decoder."""

    name = "decoder"
    inputs = ("image_embeddings", SPARSE, "mask_prompt")
    outputs = ("mask_logits",)

    def forward(self, image_embeddings: Tensor, *prompts: Tensor) -> tuple[Tensor]:
        # [B, C, h, w], [B, P, C] unless P = 0, [B, 1, S/4, S/4] -> [B, S/4, S/4]
        *given, mask_prompt = prompts
        sparse = given[0] if given else to_tokens(image_embeddings)[:, :0]
        return (self.model.decoder(image_embeddings, sparse, mask_prompt)[:, 0],)


class PhotoStage(Stage):
    """A stage of a `PhotoSAM`. Its tensors have the meanings of `model.photo`."""

    model: PhotoSAM


class PhotoTextStage(PhotoStage):
    """Phrase to word features, and the classes that it names."""

    name = "text"
    inputs = ("input_ids", "attention_mask")
    outputs = ("lang_feats", "name_logits")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        # int32 [B, L], int32 [B, L] -> [B, L, text width], [B, 2, aliases + 1000 + 1]
        return self.model.text(input_ids, attention_mask)


class PhotoImageStage(PhotoStage):
    """Pixels to all that does not depend on the phrase."""

    name = "image"
    inputs = ("image",)
    outputs = ("image_tokens", "fine", "image_embeddings", "class_scores", "class_maps", "boxes")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # uint8 [B, S, S, 3] -> [B, hw, D], [B, F, 2h, 2w], [B, C, h, w], [B, 80, N], [B, 1000, M], [B, 4, N]
        return tuple(self.model.image_prefix(normalise(image)))


class PhotoInteractorStage(PhotoStage):
    """Image, phrase and candidates read one another."""

    name = "vli"
    inputs = (
        *("image_tokens", "lang_feats", "attention_mask"),
        *("name_logits", "class_scores", "class_maps", "boxes"),
    )
    outputs = ("visual_tokens", "small_tokens", "candidates", "heat_maps")

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        # -> [B, hw, D], [B, words + context + candidates, D], [B, candidates, 6], [B, 6, 2h, 2w]
        return self.model.vli(*tensors)


class PhotoPrompterStage(PhotoStage):
    """Sparse prompts, a coarse mask, and whether the thing is there."""

    name = "vlp"
    inputs = ("visual_tokens", "small_tokens", "attention_mask", "candidates", "heat_maps", "fine")
    outputs = (SPARSE, "mask_prompt", "coarse_logits", "presence")

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        # -> [B, 2 + P, C], [B, 1, S/4, S/4], [B, S/4, S/4], [B, 1]
        return self.model.vlp(*tensors)


class PhotoDecoderStage(PhotoStage):
    """SAM's mask decoder; the mask is empty when the thing is not there."""

    name = "decoder"
    inputs = ("image_embeddings", SPARSE, "mask_prompt", "coarse_logits", "presence")
    outputs = ("mask_logits",)

    def forward(self, *tensors: Tensor) -> tuple[Tensor]:
        # -> [B, S/4, S/4]
        return (self.model.decoder(*tensors),)


PLAIN = (TextStage, ImageStage, InteractorStage, PrompterStage, DecoderStage)
PHOTO = (PhotoTextStage, PhotoImageStage, PhotoInteractorStage, PhotoPrompterStage, PhotoDecoderStage)


def stages(model: ReferSAM | PhotoSAM) -> list[Stage]:
    """The stages of a model, in evaluation mode, each after the stages that make its inputs."""
    model.eval()
    kinds = PHOTO if isinstance(model, PhotoSAM) else PLAIN
    return [kind(model).eval() for kind in kinds]


@torch.no_grad()
def run(stages: Sequence[Stage], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Run stages in turn on `image`, `input_ids` and `attention_mask`; returns these and all results."""
    tensors = dict(inputs)
    for stage in stages:
        results = stage(*(tensors[name] for name in stage.inputs))
        tensors.update(zip(stage.outputs, results, strict=True))
    return tensors
