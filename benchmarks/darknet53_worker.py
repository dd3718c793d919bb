"""One framework's Darknet53: predicts an image, or makes a train step on four, each time it is asked."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness import private_channel, serve

SIZE, CLASSES, BATCH = 256, 1000, 4
STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
REPEATS = 3
"""Predictions in one answer; a train step is long enough alone."""

Work = dict[str, Callable[[], None]]


def gradloom() -> tuple[Work, str]:
    """Predict and train through `Model`."""
    import gradloom as gl

    model = gl.applications.Darknet53()
    model.compile(gl.optimizers.SGD(1e-3, momentum=0.9), "sparse_categorical_crossentropy")
    image, images, labels = data()
    work = {"predict": lambda: model.predict_on_batch(image), "train": lambda: model.train_on_batch(images, labels)}
    return work, "0"


def torch() -> tuple[Work, str]:
    """The same network in eager PyTorch, channels last."""
    import torch
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def convolution(channels: int, filters: int, size: int, stride: int) -> nn.Sequential:
        convolve = nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)
        return nn.Sequential(convolve, nn.BatchNorm2d(filters, eps=1e-3), nn.LeakyReLU(0.1, inplace=True))

    class Residual(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            narrow = channels // 2
            self.body = nn.Sequential(convolution(channels, narrow, 1, 1), convolution(narrow, channels, 3, 1))

        def forward(self, x: Any) -> Any:
            return x + self.body(x)

    layers: list[nn.Module] = [convolution(3, 32, 3, 1)]
    before = 32
    for channels, blocks in STAGES:
        layers += [convolution(before, channels, 3, 2), *(Residual(channels) for _ in range(blocks))]
        before = channels
    top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES)]
    network = nn.Sequential(*layers, *top).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    image, images, labels = (torch.from_numpy(array) for array in data())
    image, images = (x.permute(0, 3, 1, 2) for x in (image, images))

    def predict() -> None:
        network.eval()
        with torch.inference_mode():
            network(image).softmax(1)

    def train() -> None:
        network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return {"predict": predict, "train": train}, torch.__version__


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, a batch of images, and its labels."""
    rng = np.random.default_rng(0)
    image = rng.random((1, SIZE, SIZE, 3), np.float32)
    return image, rng.random((BATCH, SIZE, SIZE, 3), np.float32), rng.integers(0, CLASSES, BATCH)


def main() -> None:
    channel = private_channel()
    framework, task = sys.argv[1:]
    try:
        work, version = {"gradloom": gradloom, "torch": torch}[framework]()
    except ModuleNotFoundError as error:
        with os.fdopen(channel, "w") as out:
            print(json.dumps({"missing": str(error)}), file=out, flush=True)
        return
    run = work[task]

    def answer(request: str) -> Mapping[str, Any]:
        start = time.perf_counter()
        repeats = REPEATS if task == "predict" else 1
        for _ in range(repeats):
            run()
        seconds = (time.perf_counter() - start) / repeats
        return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    answer("warm up")
    serve({"version": version, "first": first}, answer, channel)


if __name__ == "__main__":
    main()
