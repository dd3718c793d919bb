"""GFLOP/s of multiplying square matrices: `gl.function` beside NumPy and the measured peak of all cores.

The peak is the time of as many multiply-adds on values that stay in registers, taken in the same rounds. Prints tables;
writes every round to `out/bench/matmul.json`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aims import Aim, written
from call_worker import Task
from contest import AVX2, Result, calls, compete, lead, report
from harness import affinity, machine, parser, table, write_json

SIZES = (512, 768, 1024, 1536, 2048)
FRAMEWORKS = ("gradloom", "numpy", "torch")
ANSWER = 0.1
"""Seconds that an answer takes about, at 200 GFLOP/s."""

EXACTNESS = 1e-5
"""Largest accepted error of a row of the product, over its root mean square; float32 sums stay below 1e-6."""


def matrices(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices f32[n,n], of positive and negative numbers."""
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((2, n, n), np.float32)
    return a, b


def gradloom(case: dict[str, Any]) -> Task:
    """A compiled function."""
    import gradloom as gl

    a, b = matrices(case["n"])
    product = gl.function(gl.ops.matmul)
    return Task(lambda: product(a, b), ("gradloom", "llvmlite"), repeats(case))


def numpy(case: dict[str, Any]) -> Task:
    """The BLAS that NumPy was built with."""
    a, b = matrices(case["n"])
    return Task(lambda: np.matmul(a, b), ("numpy",), repeats(case))


def torch(case: dict[str, Any]) -> Task:
    """The BLAS that PyTorch was built with."""
    import torch

    torch.set_num_threads(len(affinity()))
    a, b = (torch.from_numpy(array) for array in matrices(case["n"]))
    return Task(lambda: torch.mm(a, b).numpy(), ("torch",), repeats(case))


def peak(case: dict[str, Any]) -> Task:
    """As many multiply-adds as the product has, on registers alone."""
    from gradloom.compiler.llvm.target import Target
    from machine import BLOCKS, CHAINS, executable, fma_kernel

    target = Target.host()
    kernel = fma_kernel(target.lanes, round(case["n"] ** 3 / (BLOCKS * CHAINS * target.lanes)))
    run = executable(kernel, target)
    arrays = {"data": np.ones(kernel.buffers[0].type.shape, np.float32)}

    def chains() -> np.ndarray:
        run.run(arrays)
        return arrays["data"]

    return Task(chains, ("gradloom", "llvmlite"), repeats(case))


def repeats(case: dict[str, Any]) -> int:
    """Products in one answer."""
    return max(1, round(ANSWER * 200e9 / flops(case["n"])))


def flops(n: int) -> float:
    """Multiplications and additions of a product of n×n matrices."""
    return 2.0 * n**3


def measure(n: int, rounds: int, environment: Mapping[str, str]) -> Result:
    """Let all frameworks multiply by turns, and the peak be measured in between."""
    a, b = matrices(n)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reference.npz"
        np.savez(file, product=a[:1].astype(np.float64) @ b)
        entries = calls("matmul", FRAMEWORKS, {"n": n, "task": "product", "reference": str(file)}, environment)
        entries += calls("matmul", ["peak"], {"n": n}, environment)
        return compete(f"matmul of {n} squared", entries, rounds, EXACTNESS)


def aims(n: int, result: Result) -> list[Aim]:
    """A share of the peak, and a lead over NumPy."""
    share = lead(result, "gradloom", ["peak"])
    return [
        Aim(f"matmul of {n} squared", 85.0, "% of the fma peak", None if share is None else 100 * share),
        Aim(f"matmul of {n} squared", 1.8, "× NumPy", lead(result, "gradloom", ["numpy"])),
    ]


def rates(results: dict[int, Result]) -> str:
    """A table of GFLOP/s, by framework and size."""
    rows = []
    for name in (*FRAMEWORKS, "peak"):
        row = [name]
        for n, result in results.items():
            given = [flops(n) / answer["seconds"] for answer in result["answers"].get(name, ())]
            row.append(f"{statistics.median(given) / 1e9:.0f}" if given else "not available")
        rows.append(row)
    return table(["GFLOP/s", *map(str, results)], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all sizes, print the tables, write the file."""
    given = parser(__doc__, "matmul")
    given.add_argument("--avx2", action="store_true", help="hold all to AVX2; results get a name of their own")
    options = given.parse_args(argv)
    if options.avx2:
        options.output = options.output.with_stem(f"{options.output.stem}-avx2")
    results = {}
    for n in SIZES[:2] if options.quick else SIZES:
        results[n] = measure(n, options.rounds, AVX2 if options.avx2 else {})
        print(report(results[n]), flush=True)
    print(rates(results))
    reached = [aim for n, result in results.items() for aim in aims(n, result)]
    write_json(options.output, {"machine": machine(), "results": list(results.values()), "aims": written(reached)})
    print(f"all rounds: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
