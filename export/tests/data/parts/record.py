"""Records what the package's own code says of EfficientNet-Lite0 on random pixels, into lite0.npz.

pip install efficientnet-lite-pytorch==0.1.0, then: python tests/data/parts/record.py PARTS
"""

import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

SIDE, SEED = 96, 0


def main() -> None:
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(Path(sys.argv[1], "efficientnet-lite0.pth"))
    ).eval()
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        logits = network(pixels).numpy()
    np.savez_compressed(Path(__file__).parent / "lite0.npz", logits=logits)


if __name__ == "__main__":
    main()
