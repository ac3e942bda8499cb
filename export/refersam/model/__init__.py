"""The ReferSAM model."""

from .config import (
    AdapterConfig,
    DecoderConfig,
    PrompterConfig,
    ReferSAMConfig,
    TextConfig,
    VitConfig,
    preset,
)
from .refersam import Output, ReferSAM

__all__ = [
    "AdapterConfig",
    "DecoderConfig",
    "Output",
    "PrompterConfig",
    "ReferSAM",
    "ReferSAMConfig",
    "TextConfig",
    "VitConfig",
    "preset",
]
