"""Write the compiler's reports of a small classifier and of Darknet53, to be opened in a browser.

Run it as `make report`, or `python examples/reports.py --help`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gradloom as gl


def classifier() -> gl.Model:
    """A network of two dense layers for Fashion-MNIST, ready to be trained."""
    model = gl.Sequential(
        [
            gl.Input((28, 28)),
            gl.layers.Flatten(),
            gl.layers.Dense(128, activation="relu"),
            gl.layers.Dense(10),
        ],
        name="mlp",
    )
    loss = gl.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


def darknet53() -> gl.Model:
    """Darknet53, ready to be trained."""
    model = gl.applications.Darknet53()
    optimizer = gl.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


REPORTS: dict[str, tuple[Callable[[], gl.Model], str, int]] = {
    "mlp-train": (classifier, "train", 32),
    "darknet53-predict": (darknet53, "predict", 1),
    "darknet53-train": (darknet53, "train", 8),
}
"""Of each report: the model, which of its steps, and the batch size."""


def main(command: Sequence[str] | None = None) -> None:
    """Write the reports, and say how large each is and how long it took."""
    parser = argparse.ArgumentParser(description="Write reports of what the compiler makes of three programs.")
    parser.add_argument("reports", nargs="*", metavar="REPORT", help=f"of {', '.join(REPORTS)}; by default all")
    parser.add_argument(
        "--output", type=Path, default=Path("out/reports"), metavar="DIR", help="by default %(default)s"
    )
    arguments = parser.parse_args(command)
    if unknown := set(arguments.reports) - set(REPORTS):
        parser.error(f"Expected reports of {', '.join(REPORTS)}. Received: {', '.join(sorted(unknown))}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.reports or REPORTS:
        make, mode, batch_size = REPORTS[name]
        begin = time.perf_counter()
        path = make().inspect(batch_size=batch_size, mode=mode).save(arguments.output / f"{name}.html")
        seconds = time.perf_counter() - begin
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
