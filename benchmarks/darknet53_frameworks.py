"""Darknet53 in each framework, at its best for latency: `predict` a batch of images, or `train` on one.

Every framework gets NumPy arrays in the memory layout that it likes best, and gives one back.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from call_worker import Task, Unavailable
from darknet53_case import make_data
from harness import affinity

Case = dict[str, Any]
"""task, batch, folder (of what `darknet53_torch.py` has written)."""


def gradloom(case: Case, autotune: bool = False) -> Task:
    """`predict_on_batch` and `train_on_batch` of the model of `gl.applications`."""
    import gradloom as gl
    from gradloom.compiler.llvm.target import Target

    model = gl.applications.Darknet53()
    with np.load(Path(case["folder"]) / "weights.npz") as file:
        model.set_weights([file[name] for name in file.files])
    images, labels = make_data(case["batch"])
    packages, level = ("gradloom", "llvmlite"), Target.host().level
    sgd = gl.optimizers.SGD(1e-3, momentum=0.9)
    model.compile(sgd, "sparse_categorical_crossentropy", autotune=autotune)
    if case["task"] == "predict":
        return Task(lambda: model.predict_on_batch(images), packages, arithmetic=level)
    return Task(lambda: np.asarray(model.train_on_batch(images, labels)), packages, arithmetic=level)


def gradloom_autotuned(case: Case) -> Task:
    """The same with measured choices."""
    return gradloom(case, autotune=True)


def gradloom_bf16(case: Case) -> Task:
    """The same with products in bfloat16."""
    import gradloom as gl

    try:
        gl.mixed_precision.set_global_policy("mixed_bfloat16")
    except AttributeError:
        raise Unavailable("Gradloom has no mixed precision") from None
    return gradloom(case)


def torch(case: Case) -> Task:
    """Eager, channels last."""
    import torch

    import darknet53_torch

    torch.set_num_threads(len(affinity()))
    network = darknet53_torch.network().to(memory_format=torch.channels_last)
    images, labels = darknet53_torch.images(case["batch"]), torch.from_numpy(make_data(case["batch"])[1])
    if case["task"] == "predict":
        network.eval()

        def predict() -> np.ndarray:
            with torch.inference_mode():
                return network(images).softmax(1).numpy()

        return Task(predict, ("torch",), arithmetic=torch.backends.cpu.get_cpu_capability())
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def train() -> np.ndarray:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach().numpy()

    return Task(train, ("torch",), arithmetic=torch.backends.cpu.get_cpu_capability())


def torch_compile(case: Case) -> Task:
    """Compiled with constant weights ("freezing"), channels last."""
    # PyTorch's OpenMP pool and that of the compiled code spin against each other unless they sleep: six times slower.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch
    import torch._inductor.config

    import darknet53_torch

    torch.set_num_threads(len(affinity()))
    torch._inductor.config.freezing = True
    network = darknet53_torch.network().eval().to(memory_format=torch.channels_last)
    compiled = torch.compile(torch.nn.Sequential(network, torch.nn.Softmax(1)))
    images = darknet53_torch.images(case["batch"])

    def predict() -> np.ndarray:
        with torch.no_grad():
            return compiled(images).numpy()

    return Task(predict, ("torch",), arithmetic=torch.backends.cpu.get_cpu_capability())


def onnxruntime(case: Case) -> Task:
    """A session with its defaults, which are for latency."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(affinity())
    session = onnxruntime.InferenceSession(_exported(case), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    feed = {given.name: _channels_first(case)}
    return Task(lambda: session.run(None, feed)[0], ("onnxruntime",))


def openvino(case: Case, precision: str = "f32") -> Task:
    """Compiled for latency; arithmetic in `precision`, which would otherwise be what the processor is fastest in."""
    import openvino

    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": len(affinity()),
    }
    compiled = openvino.Core().compile_model(_exported(case), "CPU", hints)
    feed = [_channels_first(case)]
    # Each node tells the primitive that was chosen for it: the commonest are those of the 3×3 and 1×1 convolutions.
    chosen = Counter(node.get_rt_info()["primitiveType"].astype(str) for node in compiled.get_runtime_model().get_ops())
    arithmetic = ", ".join(kind for kind, _ in chosen.most_common() if "conv" in kind)
    return Task(lambda: compiled(feed, share_inputs=True)[0], ("openvino",), arithmetic=arithmetic)


def openvino_bf16(case: Case) -> Task:
    """The same with products in bfloat16."""
    return openvino(case, "bf16")


def _exported(case: Case) -> str:
    return str(Path(case["folder"]) / f"b{case['batch']}.onnx")


def _channels_first(case: Case) -> np.ndarray:
    return np.ascontiguousarray(make_data(case["batch"])[0].transpose(0, 3, 1, 2))
