"""Profiles: the bookkeeping of times, FLOPs and bytes, on time stamps made by hand; models stay as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import gradloom as gl
import networks
from gradloom.compiler import parse
from gradloom.compiler.errors import MemoryLimitError
from gradloom.compiler.llvm.target import Target
from gradloom.compiler.options import Options
from gradloom.compiler.pipeline import lower
from gradloom.compiler.program import Barrier
from gradloom.data_adapter import data_type
from gradloom.inspection import inspect_graph, roof
from gradloom.inspection.measuring import Measurement
from gradloom.inspection.profiling import Profile, profile_of
from gradloom.inspection.roof import Roof
from gradloom.inspection.work import Credit
from gradloom.random_seed import new_stream
from gradloom.runtime.timing import Timeline
from gradloom.step_graphs import train_step
from small_files import small_files

MACHINE = Roof(threads=2, peak=100e9, cache=200e9, shared=50e9, memory=10e9, cache_bytes=10_000, shared_bytes=10**6)
BATCH, INPUTS, HIDDEN, CLASSES = 16, 20, 24, 10
MOST_TRIALS = 100
"""Of what others on the machine may disturb."""


@pytest.fixture(autouse=True)
def _no_measured_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine's roof as given: measuring it takes a moment."""
    monkeypatch.setattr("gradloom.inspection.profiling.roof", lambda threads, seen=0.0: MACHINE)


def mlp(dropout: float = 0.0) -> gl.Sequential:
    layers = [
        gl.Input((INPUTS,)),
        gl.layers.Dense(HIDDEN, activation="relu", name="hidden"),
        *([gl.layers.Dropout(dropout)] if dropout else []),
        gl.layers.Dense(CLASSES, name="logits"),
    ]
    model = gl.Sequential(layers, name="mlp")
    model.compile("adam", gl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def faked(
    model: gl.Model, microseconds: Sequence[int] | None = None, mode: str = "train", busy: float = 0.75
) -> Profile:
    """The profile of a step whose items take so many microseconds on thread 0, and half of that on thread 1.

    busy: the part of that time which threads spend on average.
    """
    graph = model.train_graph(BATCH) if mode == "train" else model.predict_graph(BATCH)
    lowering = lower(graph, Options(cores=2, timed=True))
    count = len(lowering.steps)
    spent = 1000 * np.array(range(1, count + 1) if microseconds is None else microseconds)
    points = np.concatenate([[0], np.cumsum(spent)])
    times = 5_000_000 + np.stack([np.stack([points, points // 2]), np.stack([points, points // 2]) + points[-1]])
    timeline = Timeline(times, [isinstance(step, Barrier) for step in lowering.steps])
    items, busy_items = 1e-9 * spent, busy * 1e-9 * spent
    measurement = Measurement(1e-9 * float(spent.sum()), tuple(items), tuple(busy_items), 2, timeline)
    return profile_of("mlp", lowering, measurement, MACHINE)


def test_flops_are_those_of_hand_calculation() -> None:
    profile = faked(mlp())
    products = 2 * BATCH * INPUTS * HIDDEN, 2 * BATCH * HIDDEN * CLASSES
    by_path = {layer.path: layer for layer in profile.layers}
    hidden, logits = by_path["hidden"], by_path["logits"]
    # Product, bias and activation; then the gradient of the kernel, that of the bias, and the activation's.
    assert hidden.forward_flops == products[0] + 2 * BATCH * HIDDEN
    assert hidden.gradient_flops == products[0] + BATCH * HIDDEN + 2 * BATCH * HIDDEN
    # The first layer's input has no gradient, the second's has.
    assert logits.gradient_flops >= 2 * products[1] + BATCH * CLASSES
    assert sum(kernel.defined_flops for kernel in profile.kernels) == profile.flops


def test_a_kernel_that_is_read_once_moves_each_operand_once() -> None:
    model = gl.Sequential([gl.Input((INPUTS,)), gl.layers.Dense(HIDDEN, use_bias=False)])
    (kernel,) = faked(model, mode="predict").kernels
    nbytes = 4 * (BATCH * INPUTS + INPUTS * HIDDEN + BATCH * HIDDEN)
    flops = 2 * BATCH * INPUTS * HIDDEN
    assert (kernel.bytes, kernel.flops, kernel.seconds) == (nbytes, flops, pytest.approx(1e-6))
    assert kernel.gflops == pytest.approx(1e-3 * flops) and kernel.gbs == pytest.approx(1e-3 * nbytes)
    # All of it fits the cores' own caches: the peak is the nearer bound.
    assert nbytes < MACHINE.cache_bytes and kernel.bound_share == pytest.approx(
        1e6 * max(flops / 100e9, nbytes / 200e9)
    )


def test_rates_of_a_kernel_that_ran_beside_others_are_by_the_time_that_threads_had_for_it() -> None:
    """The thread that all waited for had nothing to do in it."""
    model = gl.Sequential([gl.Input((INPUTS,)), gl.layers.Dense(HIDDEN, use_bias=False)])
    (alone,), (beside,) = (faked(model, mode="predict", busy=busy).kernels for busy in (0.75, 8.0))
    assert beside.seconds == alone.seconds and beside.busy_seconds == pytest.approx(8 * alone.seconds)
    for name in ("gflops", "gbs", "bound_share"):
        assert getattr(beside, name) == pytest.approx(getattr(alone, name) / 8), name


def test_what_is_replaced_is_read_and_written() -> None:
    model = gl.Sequential([gl.Input((INPUTS,)), gl.layers.Dense(HIDDEN, use_bias=False, name="only")])
    model.compile("sgd", "mse")
    (update,) = [kernel for kernel in faked(model).kernels if kernel.label == f"only ∂: {INPUTS}×{BATCH}×{HIDDEN}"]
    rows, learning_rate = 4 * BATCH, 4
    assert update.bytes == 4 * (BATCH * INPUTS + BATCH * HIDDEN + 2 * INPUTS * HIDDEN) + rows + learning_rate


def test_winograd_is_told_from_the_definition() -> None:
    model = gl.Sequential([gl.Input((16, 16, 16)), gl.layers.Conv2D(32, 3, padding="same", use_bias=False, name="c")])
    profile = model.inspect(1, "predict").profile(seconds=1e-3)
    (kernel,) = [kernel for kernel in profile.kernels if kernel.defined_flops]
    assert kernel.defined_flops == 2 * 9 * 16 * 16 * 16 * 32
    assert kernel.flops == 2 * 36 * (16 * 16 / 16) * 16 * 32


def test_times_add_up_by_kernel_and_by_layer() -> None:
    profile = faked(mlp())
    assert profile.kernel_seconds + profile.barrier_seconds == pytest.approx(profile.wall_seconds)
    assert sum(layer.seconds for layer in profile.layers) == pytest.approx(profile.kernel_seconds)
    assert sum(layer.flops for layer in profile.layers) == pytest.approx(profile.flops)
    assert {layer.path for layer in profile.layers} >= {"hidden", "logits", "adam", "loss", "accuracy"}
    for layer in profile.layers:
        assert layer.seconds == layer.forward_seconds + layer.gradient_seconds
        if layer.path in ("adam", "accuracy"):
            assert layer.gradient_seconds == 0, layer
    assert [kernel.seconds for kernel in profile.dearest] == sorted((k.seconds for k in profile.kernels), reverse=True)
    assert all(kernel.busy_seconds == pytest.approx(0.75 * kernel.seconds) for kernel in profile.kernels)


def test_a_kernel_is_shared_by_work() -> None:
    profile = faked(mlp())
    (update,) = [k for k in profile.kernels if Credit("hidden", True) in k.credits and k.flops > 10_000]
    assert sum(update.credits.values()) == pytest.approx(1)
    assert update.credits[Credit("hidden", True)] == pytest.approx(2 * BATCH * INPUTS * HIDDEN / update.flops)
    assert update.credits[Credit("adam")] > 0.2 and update.label == "hidden ∂: 20×16×24"


def test_gradients_of_transposed_weights_belong_to_their_layer() -> None:
    """Weights of few columns are kept transposed, and so is their gradient."""
    profile = faked(mlp())
    assert any(argument for argument in profile.kernels if Credit("logits", True) in argument.credits)
    product = 2 * BATCH * HIDDEN * CLASSES
    (logits,) = [layer for layer in profile.layers if layer.path == "logits"]
    assert logits.gradient_flops == pytest.approx(2 * product, rel=0.2)


@pytest.mark.parametrize("mode", ["train", "evaluate", "predict"])
def test_profiling_leaves_the_model_as_it_was(mode: str) -> None:
    model = mlp(dropout=0.5)
    rng = np.random.default_rng(1)
    x, y = rng.random((40, INPUTS), np.float32), rng.integers(0, CLASSES, 40).astype(np.int32)
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    types = (("x", data_type(x)), ("y", data_type(y)))

    def state() -> dict[str, bytes]:
        """Every variable of the train step: weights, optimizer, random counters, running loss and metrics."""
        return {name: array.tobytes() for name, array in train_step(model, BATCH, types).arguments().items()}

    before, programs, stream = state(), dict(model._programs._kept), new_stream().number
    assert {"adam/iterations", "loss/total", "accuracy/total"} < before.keys() and len(before) > 12
    inspection = model.inspect(BATCH, mode)
    for given in ((), (x, y), (x.astype(np.float64), y.astype(np.int64))):
        data = given[:1] if mode == "predict" else given
        assert inspection.profile(*data, seconds=1e-3).steps >= 3
    assert state() == before and model._programs._kept == programs
    assert new_stream().number == stream + 1


def test_data_of_another_type_is_refused() -> None:
    inspection = mlp().inspect(BATCH)
    x, y = np.zeros((BATCH, INPUTS), np.float32), np.zeros(BATCH, np.int32)
    with pytest.raises(ValueError, match=r"'x': Expected data of the type that was inspected, f32\[.*Received: u8"):
        inspection.profile(x.astype(np.uint8), y)
    with pytest.raises(ValueError, match="'x': Expected at least a batch, 16 samples. Received: 5"):
        inspection.profile(x[:5], y[:5])
    with pytest.raises(ValueError, match="Expected seconds as a positive number. Received: seconds=0"):
        inspection.profile(x, y, seconds=0)


def test_labels_as_bytes_are_taken_as_fit_takes_them() -> None:
    x, y = np.zeros((BATCH, INPUTS), np.float32), np.zeros(BATCH, np.uint8)
    assert mlp().inspect(BATCH).profile(x, y, seconds=1e-3).steps >= 3


def test_functions_are_profiled_by_line() -> None:
    def f(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return gl.ops.tanh(gl.ops.matmul(x, y))

    x = np.ones((32, 32), np.float32)
    inspection = gl.inspect(f, x, x)
    for profile in (inspection.profile(x, y=x, seconds=1e-3), inspection.profile(seconds=1e-3)):
        assert profile.flops == 2 * 32**3 + 32**2
        assert [layer.path.partition(":")[0] for layer in profile.layers] == ["test_profiling.py"]
    with pytest.raises(ValueError, match="Expected 2 arrays, for x, y. Received: 1"):
        inspection.profile(x)


def test_a_bare_graph_is_profiled_on_drawn_numbers() -> None:
    profile = inspect_graph(gl.trace(lambda x: x @ x, gl.TensorSpec((8, 8)))).profile(seconds=1e-3)
    assert profile.flops == 2 * 8**3 and profile.wall_seconds > 0


def test_the_tables_fit_the_page() -> None:
    profile = faked(mlp(0.5))
    text = profile.text()
    assert max(map(len, text.splitlines())) <= 100
    assert str(profile) == text and "hidden ∂: 20×16×24" in text and "adam" in text and "100 GFLOP/s" in text
    long = gl.Sequential([gl.Input((INPUTS,)), gl.layers.Dense(3, name="a_layer_with_a_long_name" * 5 + "_end")])
    assert max(map(len, (lines := faked(long, mode="predict").text()).splitlines())) <= 100 and "_end" in lines
    short = profile.text(rows=2)
    assert f"{len(profile.kernels) - 2} other kernels" in short and f"{len(profile.layers) - 2} other layers" in short


def test_the_charts_are_drawings_of_all_layers_and_kernels() -> None:
    profile = faked(mlp())
    bars = ElementTree.fromstring(profile.svg())
    texts = ["".join(element.itertext()) for element in bars.iter("{http://www.w3.org/2000/svg}text")]
    assert {layer.path for layer in profile.layers} <= set(texts)
    assert {"forward", "gradient"} <= set(texts)
    dots = list(ElementTree.fromstring(profile.roofline_svg()).iter("{http://www.w3.org/2000/svg}circle"))
    assert len(dots) == sum(kernel.flops > 0 for kernel in profile.kernels)
    assert "prefers-color-scheme:dark" in profile.svg() and "<svg" in profile._repr_html_()


def test_names_in_the_roofline_lie_over_no_dot_and_no_other_name() -> None:
    space = "{http://www.w3.org/2000/svg}"
    model = gl.Sequential(
        [gl.Input((INPUTS,)), *(gl.layers.Dense(20 + n, "relu", name=f"layer_{n}") for n in range(8))]
    )
    root = ElementTree.fromstring(faked(model, mode="predict").roofline_svg())
    discs = [tuple(float(dot.get(key, "nan")) for key in ("cx", "cy", "r")) for dot in root.iter(f"{space}circle")]
    names = [text for text in root.iter(f"{space}text") if text.get("class") == "label"]
    areas = []
    for name in names:
        x, y, half = float(name.get("x", "nan")), float(name.get("y", "nan")), 2.5 * len(name.text or "")
        areas.append((x - half, y - 8, x + half, y + 2))
    assert len(discs) > len(areas) > 1
    for number, (left, top, right, bottom) in enumerate(areas):
        for x, y, radius in discs:
            assert math.hypot(x - min(max(x, left), right), y - min(max(y, top), bottom)) >= radius
        for other in areas[:number]:
            assert left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]


def test_a_busy_machine_is_told_in_a_line_of_texts_and_charts() -> None:
    """Kernels that are faster than the machine, and barriers at which threads wait for a processor."""
    model = mlp()
    count = len(lower(model.train_graph(BATCH), Options(cores=2, timed=True)).steps)
    quiet, fast, slow = (faked(model, [spent] * count) for spent in (10, 0, 50))
    fast = replace(fast, kernels=tuple(replace(kernel, bound_share=1.2) for kernel in fast.kernels[:2]))
    assert quiet.doubt == ""
    assert fast.doubt == "doubtful: others seem to have used the machine (2 of 2 kernels above the roof)"
    assert slow.doubt == "doubtful: others seem to have used the machine (barriers of 50 µs)"
    for profile in (fast, slow):
        assert profile.doubt in profile.text().splitlines() and profile.json()["doubt"] == profile.doubt
    for chart in (slow.svg(), slow.roofline_svg()):
        assert slow.doubt in chart and "doubtful" not in quiet.svg() + quiet.roofline_svg()
        ElementTree.fromstring(chart)
    assert "doubtful" not in quiet.text()


def test_everything_is_json() -> None:
    profile = faked(mlp())
    read = json.loads(json.dumps(profile.json()))
    assert len(read["kernels"]) == len(profile.kernels) and len(read["layers"]) == len(profile.layers)
    assert read["kernels"][0]["seconds"] == profile.kernels[0].seconds and read["roof"]["peak"] == MACHINE.peak


def test_a_trace_that_finds_no_room_leaves_the_old_one(tmp_path: Path) -> None:
    profile, path = faked(mlp()), tmp_path / "trace.json"
    path.write_text("old")
    with pytest.raises(OSError, match="trace.json") as error, small_files(200):
        profile.save_trace(path)
    assert error.value.filename == str(path) and path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_trace_has_a_track_of_nested_events_for_each_thread(tmp_path: Path) -> None:
    profile = faked(mlp())
    profile.save_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {0: "caller", 1: "worker 1"} and {event["pid"] for event in events} == {1}
    for thread in names:
        track = [event for event in events if event["tid"] == thread and event["ph"] == "X"]
        steps = [event for event in track if event["cat"] == "step"]
        assert len(steps) == 2
        for step in steps:
            end = step["ts"] + step["dur"]
            inner = [
                e for e in track if e["cat"] != "step" and step["ts"] <= e["ts"] and e["ts"] + e["dur"] <= end + 1e-9
            ]
            assert len(inner) == len(profile.kernels) + profile.barriers
            for event, following in pairwise(inner):
                assert event["ts"] + event["dur"] == pytest.approx(following["ts"])
            kernels = [event for event in inner if event["cat"] == "kernel"]
            assert [event["args"]["flops"] for event in kernels] == [kernel.flops for kernel in profile.kernels]
            assert "hidden" in kernels[0]["args"]["layers"]


def test_the_roof_is_measured_once_and_raised_when_a_kernel_is_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def fake(target: object, threads: int) -> Roof:
        measured.append(threads)
        rate = 1e9 * len(measured)
        return Roof(threads, rate, 8e9 / rate, rate, rate, 1, 2)

    monkeypatch.setattr(roof, "measured", fake)
    monkeypatch.setattr(roof, "_known", {})
    assert roof.roof(3).peak == 1e9 and roof.roof(3, seen=0.5e9).peak == 1e9 and measured == [3]
    raised = roof.roof(3, seen=1.5e9)
    assert (raised.peak, raised.cache, raised.memory) == (2e9, 8.0, 2e9) and measured == [3, 3]
    monkeypatch.setattr(roof, "_known", {})
    assert roof.roof(3) == raised and measured == [3, 3], "it is on the disk"


def test_the_roof_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "SHARE_SECONDS", 1e-3)
    monkeypatch.setattr(roof, "MEMORY_BYTES", 4_000_000)
    # A processor from this century, and none that there is.
    least, most = np.array([1e9, 1e8, 1e8, 1e8]), 1e12
    best = np.zeros(4)
    # Others that use the machine make it seem slower, never faster: it goes on until nobody did.
    for _ in range(MOST_TRIALS):
        measured = roof.measured(Target.host(), 1)
        assert measured.threads == 1 and measured.cache_bytes == Target.host().l2
        best = np.maximum(best, [measured.peak, measured.cache, measured.shared, measured.memory])
        if (best > least).all():
            break
    assert (best > least).all() and (best < most).all()


@pytest.mark.parametrize(("footprint", "rate"), [(10_000, 200e9), (10_001, 50e9), (10**6, 50e9), (10**6 + 1, 10e9)])
def test_bandwidth_is_that_of_where_the_bytes_lie(footprint: int, rate: float) -> None:
    assert MACHINE.bandwidth(footprint) == rate
    assert MACHINE.seconds(0, 1e9, 0, footprint) == 1e9 / rate and MACHINE.seconds(1e12, 1, 1, footprint) == 10
    assert MACHINE.seconds(0, 0, footprint, 1e9) == footprint / rate


def test_what_a_step_does_not_take_is_refused() -> None:
    model, x = mlp(), np.zeros((BATCH, INPUTS), np.float32)
    with pytest.raises(ValueError, match="Expected x alone, since a prediction reads no targets. Received: y"):
        model.inspect(BATCH, "predict").profile(x, np.zeros(BATCH))
    with pytest.raises(ValueError, match="'mlp'.*Expected data as x and y. Received: .*'z'"):
        model.inspect(BATCH).profile(z=x)
    with pytest.raises(ValueError, match="Expected arrays for x. Received: z"):
        gl.inspect(lambda x: x + x, x).profile(z=x)
    with pytest.raises(ValueError, match="Expected no data, but seconds alone. Received: "):
        inspect_graph(gl.trace(lambda x: x @ x, gl.TensorSpec((8, 8)))).profile(x)


def test_the_limit_of_memory_holds_for_the_timed_program_too() -> None:
    model = mlp()
    assert model.inspect(BATCH).profile(seconds=1e-3).steps >= 3
    model.compile("adam", gl.losses.SparseCategoricalCrossentropy(from_logits=True), memory_limit=1000)
    inspection = model.inspect(BATCH)
    with pytest.raises(MemoryLimitError, match="Expected a program within memory_limit=1000 bytes"):
        inspection.profile(seconds=1e-3)
    assert inspection.memory.peak_bytes > 0, "what does not fit can be looked at"


@pytest.mark.parametrize("stage", ["forward", "simplified", "fused"])
def test_a_saved_stage_of_a_prediction_is_profiled_on_prepared_arrays_that_are_drawn(stage: str) -> None:
    """Those of a fused stage lie in memory as its kernels want them."""
    model = gl.Sequential([gl.Input((8, 8, 16)), gl.layers.Conv2D(32, 3, padding="same"), gl.layers.ReLU()])
    saved = parse(model.inspect(2, "predict").stages[stage].text())
    profile = inspect_graph(saved).profile(seconds=1e-3)
    assert profile.flops > 2 * 32 * 16 * 64 and profile.steps >= 3
    if stage == "fused":
        assert any(value.op.role == "prepared" for value in saved.inputs)  # type: ignore[attr-defined]


def test_targets_without_features_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected x beside y, or neither. Received: x=None"):
        networks.mlp().inspect(batch_size=2).profile(y=np.zeros(2, np.int32))
