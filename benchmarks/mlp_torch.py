"""The MLP benchmark in PyTorch, eager: plain tensors, autograd, the fused SGD of `torch.optim`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from harness import affinity
from mlp_case import SIZES, Case, Weights


class TorchPeer:
    """Mini-batch SGD; kernels as [out, in], which is what `F.linear` is fastest with."""

    def __init__(self, case: Case, images: np.ndarray, labels: np.ndarray) -> None:
        torch.set_num_threads(len(affinity()))
        self.versions = {"torch": torch.__version__}
        self.case = case
        self.images = torch.from_numpy(images)
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.generator = torch.Generator().manual_seed(case.seed)
        shapes = [(SIZES[1], SIZES[0]), (SIZES[1],), (SIZES[2], SIZES[1]), (SIZES[2],)]
        self.parameters = [torch.zeros(shape, requires_grad=True) for shape in shapes]
        self.optimizer = torch.optim.SGD(self.parameters, lr=case.learning_rate, fused=True)

    def reset(self, weights: Weights) -> None:
        with torch.no_grad():
            for parameter, array in zip(self.parameters, weights, strict=True):
                parameter.copy_(torch.from_numpy(array.T))

    def weights(self) -> Weights:
        return [parameter.detach().numpy().T for parameter in self.parameters]

    def fit(self, shuffle: bool) -> float:
        case, (w1, b1, w2, b2) = self.case, self.parameters
        total = torch.zeros(())
        for _ in range(case.epochs):
            n = case.samples
            order = torch.randperm(n, generator=self.generator) if shuffle else torch.arange(n)
            total = torch.zeros(())
            for rows in order.split(case.batch):
                x, y = self.images[rows], self.labels[rows]
                logits = F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)
                loss = F.cross_entropy(logits, y)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                total += loss.detach() * len(rows)
        return float(total) / case.samples


def build(case: Case, images: np.ndarray, labels: np.ndarray) -> TorchPeer:
    return TorchPeer(case, images, labels)
