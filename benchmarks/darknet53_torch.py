"""Darknet53 in PyTorch, the one description that every other framework's network is made from.

`darknet53_torch.py FOLDER BATCH…` writes what the workers share: `weights.npz` in the order of Gradloom's
`Model.weights`, `b1.onnx` and the like with one network for each batch size, and `reference.npz`: in float64, the
probabilities of the first image and the loss of the first training step.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from darknet53_case import CLASSES, STAGES, TRAINED, make_data

SHRINK = 0.3
"""Scale at the end of a residual block: without trained statistics, 23 additions would otherwise let values explode."""


def convolution(channels: int, filters: int, size: int, stride: int = 1, scale: float = 1.0) -> nn.Sequential:
    """Convolution, batch normalization, leaky ReLU."""
    convolve = nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(convolve.weight, a=0.1)
    normalize = nn.BatchNorm2d(filters, eps=1e-6)
    nn.init.constant_(normalize.weight, scale)
    return nn.Sequential(convolve, normalize, nn.LeakyReLU(0.1, inplace=True))


class Residual(nn.Module):
    """x + what a 1×1 convolution to half of the channels, and a 3×3 one back to all, make of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 2
        self.body = nn.Sequential(convolution(channels, narrow, 1), convolution(narrow, channels, 3, scale=SHRINK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def network() -> nn.Sequential:
    """From images f32[batch,3,height,width] to logits f32[batch,classes]; the weights are the same in every process."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [convolution(3, 32, 3)]
    before = 32
    for channels, blocks in STAGES:
        layers += [convolution(before, channels, 3, 2), *(Residual(channels) for _ in range(blocks))]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


def gradloom_weights(darknet: nn.Module) -> list[np.ndarray]:
    """The weights in Gradloom's shapes and order."""
    weights: list[torch.Tensor] = []
    for module in darknet.modules():
        if isinstance(module, nn.Conv2d):
            weights.append(module.weight.permute(2, 3, 1, 0))
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            weights += [module.weight, module.bias, module.running_mean, module.running_var]
        elif isinstance(module, nn.Linear):
            weights += [module.weight.T, module.bias]
    return [np.ascontiguousarray(weight.detach().numpy()) for weight in weights]


def images(batch: int) -> torch.Tensor:
    """So many images as PyTorch likes them best: its shape, and channels last in memory."""
    return torch.from_numpy(make_data(batch)[0]).permute(0, 3, 1, 2)


def reference() -> dict[str, np.ndarray]:
    """What the frameworks must compute, by task."""
    darknet = network().double()
    x, y = images(TRAINED).double(), torch.from_numpy(make_data(TRAINED)[1])
    with torch.inference_mode():
        probabilities = darknet.eval()(x[:1]).softmax(1)
        loss = nn.functional.cross_entropy(darknet.train()(x), y)
    return {"predict": probabilities.numpy(), "train": loss.numpy()}


def main() -> None:
    folder = Path(sys.argv[1])
    darknet = network().eval()
    np.savez(folder / "weights.npz", *gradloom_weights(darknet))
    np.savez(folder / "reference.npz", **reference())
    whole = nn.Sequential(darknet, nn.Softmax(1))
    for batch in map(int, sys.argv[2:]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(whole, (images(batch).contiguous(),), folder / f"b{batch}.onnx", dynamo=False)


if __name__ == "__main__":
    main()
