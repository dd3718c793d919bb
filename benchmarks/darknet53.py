"""Milliseconds that Darknet53 takes at 256×256, and its peak memory: Gradloom beside other frameworks.

Predicted are one image and eight, in float32 and with products in bfloat16; trained is on four, with SGD and momentum.
Each framework has a process of its own for each task; while one runs the others are stopped. All have the same
weights, and who is further than rounding from a float64 computation is not timed. Prints tables; writes every round to
`out/bench/darknet53.json`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aims import Aim, written
from contest import AVX2, Result, calls, compete, lead, report
from harness import machine, parser, write_json

ENGINES = ("onnxruntime", "openvino", "torch-compile")
"""Who is fastest in prediction otherwise."""


@dataclass(frozen=True)
class Work:
    """A row of the benchmark: own and the peers' names in `darknet53_frameworks.py`, and the lead that is aimed at.

    `exactness` limits the error of logits, relative to their root mean square, or of the loss in training.
    """

    title: str
    task: str
    batch: int
    own: str
    peers: tuple[str, ...]
    needed: float
    exactness: float = 1e-4


WORKS = (
    Work("predict, batch 1", "predict", 1, "gradloom", (*ENGINES, "torch"), 1.5),
    Work("predict, batch 8", "predict", 8, "gradloom", (*ENGINES, "torch"), 1.7),
    # Tuned programs may not be slower; what is left below 1 is noise.
    Work("predict, batch 1, autotuned", "predict", 1, "gradloom-autotuned", ("gradloom",), 0.97),
    Work("predict in bf16, batch 1", "predict", 1, "gradloom-bf16", ("openvino-bf16",), 1.0, 2e-2),
    # Darknet divides the batch's variance by n − 1 and PyTorch by n, which moves the loss by some 1e-4.
    Work("train step, batch 4", "train", 4, "gradloom", ("torch",), 1.4, 1e-3),
)

ON_AVX2 = (Work("predict on AVX2, batch 1", "predict", 1, "gradloom", (*ENGINES, "torch"), 1 / 1.2),)
"""Held to AVX2 the lead is over ONNX Runtime, which uses whatever the processor has."""


def prepare(folder: Path, works: Sequence[Work]) -> None:
    """Write the weights, the exported networks and the reference; in a process that takes its memory with it."""
    batches = sorted({str(work.batch) for work in works if work.task == "predict"})
    script = str(Path(__file__).with_name("darknet53_torch.py"))
    subprocess.run([sys.executable, script, str(folder), *batches], check=True)


def measure(work: Work, folder: Path, rounds: int, environment: Mapping[str, str]) -> Result:
    """Let all frameworks do one kind of work by turns."""
    case = {
        "task": work.task,
        "batch": work.batch,
        "folder": str(folder),
        "reference": str(folder / "reference.npz"),
        "probabilities": work.task == "predict",
    }
    entries = calls("darknet53_frameworks", (work.own, *work.peers), case, environment)
    return compete(f"Darknet53, {work.title}", entries, rounds, work.exactness)


def aims(work: Work, result: Result, held: bool) -> list[Aim]:
    """What the work must reach: a lead in time, and in training no more memory than the peer."""
    if held:
        rivals, unit = ("onnxruntime",), "× ONNX Runtime"
    elif work.task == "train" or len(work.peers) == 1:
        rivals, unit = work.peers, f"× {work.peers[0]}"
    else:
        rivals, unit = ENGINES, "× the fastest of ONNX Runtime, OpenVINO, torch.compile"
    name = f"Darknet53, {work.title}"
    found = [Aim(name, work.needed, unit, lead(result, work.own, rivals))]
    if work.task == "train":
        peaks = {key: max(answer["peak_mb"] for answer in given) for key, given in result["answers"].items()}
        own, other = peaks.get(work.own), peaks.get(work.peers[0])
        share = own / other if own and other else None
        found.append(Aim(f"{name}: peak memory", 1.0, f"× {work.peers[0]}", share, at_most=True))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all works, print their tables, write the file."""
    given = parser(__doc__, "darknet53")
    given.add_argument("--avx2", action="store_true", help="hold all to AVX2; results get a name of their own")
    given.add_argument("--only", default="", help="do only works with this in their title")
    options = given.parse_args(argv)
    if options.avx2:
        options.output = options.output.with_stem(f"{options.output.stem}-avx2")
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    works = [work for work in (ON_AVX2 if options.avx2 else WORKS) if options.only in work.title]
    results, reached = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, works)
        environment = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), **(AVX2 if options.avx2 else {})}
        for work in works:
            result = measure(work, folder, rounds, environment)
            results.append(result)
            reached += aims(work, result, options.avx2)
            print(report(result), flush=True)
    write_json(options.output, {"machine": machine(), "results": results, "aims": written(reached)})
    print(f"all rounds: {options.output}")
    failed = [f"{result['title']}: {name} {why}" for result in results for name, why in result["failed"].items()]
    for fault in failed:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
