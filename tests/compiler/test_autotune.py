"""The autotuner: what it measures and keeps, and that results depend on its choices only where it says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import assert_same, run, run_program
from gradloom.compiler import autotune, ops
from gradloom.compiler.choices import DEFINITION, Choice, Choices, Departure, contraction_kind
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.kernels.contraction import other_divisions
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.options import Options, cache_key
from gradloom.compiler.passes.algorithms import choose_algorithms
from gradloom.compiler.passes.prepare import split_prepare
from gradloom.compiler.pipeline import compile_graph, lower, machine_for
from gradloom.compiler.program import Program
from gradloom.compiler.types import F32, F64, DType, TensorType

SAME = ((1, 1), (1, 1))
OPTIONS = Options(cores=2)


@dataclass
class Kept:
    """Records in memory."""

    texts: dict[str, str] = field(default_factory=dict)

    def recall(self, key: str) -> str | None:
        return self.texts.get(key)

    def keep(self, key: str, text: str) -> None:
        self.texts[key] = text


@dataclass
class Scale:
    """A measure that takes any program to need `seconds(its place)`, and counts how often it is asked."""

    seconds: Callable[[int], float]
    asked: list[int] = field(default_factory=list)

    def __call__(self, programs: Sequence[Program], footprint: int) -> list[float]:
        assert footprint > 0 and all(isinstance(program, Program) for program in programs)
        self.asked.append(len(programs))
        return [self.seconds(place) for place in range(len(programs))]


def prefer(wanted: int) -> Scale:
    """A measure by which the candidate in one place takes half as long as all others."""
    return Scale(lambda place: 1.0 if place == wanted else 2.0)


def tune(graph: Graph, measure: Scale, seconds: float = 1e9, kept: Kept | None = None) -> autotune.Tuning:
    return autotune.tune(graph, OPTIONS, measure, seconds, kept or Kept())


def product(rows: int = 70, depth: int = 33, columns: int = 100, dtype: DType = F32, role: str = "argument") -> Graph:
    """A dense layer: product, bias and tanh."""
    graph = Graph("dense")
    with building(graph):
        x = graph.input("x", TensorType(dtype, (rows, depth)))
        w = graph.input("w", TensorType(dtype, (depth, columns)), role)
        bias = graph.input("b", TensorType(dtype, (columns,)))
        graph.output("y", ops.tanh(graph.apply(Matmul(), x, w) + bias))
    return graph


def contraction(op: str, channels: int = 20, filters: int = 20, stride: int = 2) -> Graph:
    """A strided convolution or one of its gradients."""
    graph, size = Graph(op), 8
    image, kernel = TensorType(F32, (2, size, size, channels)), TensorType(F32, (3, 3, channels, filters))
    result = TensorType(F32, (2, -(-size // stride), -(-size // stride), filters))
    if op == "conv2d":
        node = graph.apply(Conv2D((stride, stride), SAME), graph.input("x", image), graph.input("k", kernel))
    elif op == "conv2d_input_grad":
        gradient = Conv2DInputGrad((size, size), (stride, stride), SAME)
        node = graph.apply(gradient, graph.input("dy", result), graph.input("k", kernel))
    else:
        gradient_ = Conv2DKernelGrad((3, 3), (stride, stride), SAME)
        node = graph.apply(gradient_, graph.input("x", image), graph.input("dy", result))
    graph.output("y", node)
    return graph


def inference(size: int = 32, channels: int = 64) -> Graph:
    """A 3x3 convolution with a kernel that stays the same."""
    graph = Graph("inference")
    x = graph.input("x", TensorType(F32, (1, size, size, channels)))
    kernel = graph.input("k", TensorType(F32, (3, 3, channels, channels)), "parameter")
    graph.output("y", graph.apply(Conv2D((1, 1), SAME), x, kernel))
    return graph


def training(size: int = 32, channels: int = 64) -> Graph:
    """A 3x3 convolution whose kernel is overwritten."""
    graph = inference(size, channels)
    kernel = next(value for value in graph.inputs if value.op.attributes["label"] == "k")
    with building(graph):
        graph.output("k", kernel * 0.5, kernel)
    return graph


def contracted(graph: Graph) -> Value:
    return autotune.kinds(graph)[0].example


def arrays(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {v.op.attributes["label"]: rng.standard_normal(v.shape).astype(v.dtype.numpy) for v in graph.inputs}


def chosen(node: Value, choice: Choice, model: str = DEFINITION) -> Choices:
    return Choices((Departure(contraction_kind(node), choice, model),))


def tiles(graph: Graph) -> list[int]:
    return [value.op.attributes["tile"] for value in graph.live() if value.op.name.startswith("winograd_conv2d")]


# Divisions: the same bits.


def assert_divisions_agree(graph: Graph) -> int:
    """Every division of the product gives the same bits, on one thread and on two; return how many others there are."""
    node, given_ = contracted(graph), arrays(graph)
    expected = run(graph, given_)
    others = other_divisions(node, machine_for(OPTIONS))
    for division in others:
        program = compile_graph(graph, replace(OPTIONS, choices=chosen(node, Choice(DEFINITION, division))))
        for threads in (1, 2):
            assert_same(run_program(program, graph, given_, threads), expected, division)
    return len(others)


@given(
    rows=st.integers(1, 90), depth=st.integers(1, 40), columns=st.integers(1, 130), dtype=st.sampled_from([F32, F64])
)
@settings(max_examples=12)
def test_results_of_products_are_the_same_bits_for_all_divisions(rows, depth, columns, dtype) -> None:
    assert_divisions_agree(product(rows, depth, columns, dtype))


@pytest.mark.parametrize("op", ["conv2d", "conv2d_input_grad", "conv2d_kernel_grad"])
def test_results_of_convolutions_are_the_same_bits_for_all_divisions(op: str) -> None:
    assert assert_divisions_agree(contraction(op))


def test_a_chosen_division_is_what_the_kernel_is_built_by() -> None:
    graph = product()
    node = contracted(graph)
    kernels = {str(lower(graph, OPTIONS).scheduled)}
    others = other_divisions(node, machine_for(OPTIONS))
    assert others
    for division in others:
        choices = chosen(node, Choice(DEFINITION, division))
        kernels.add(str(lower(graph, replace(OPTIONS, choices=choices)).scheduled))
    assert len(kernels) == 1 + len(others)


# Algorithms: told, and part of the key.


@pytest.mark.parametrize(("algorithm", "expected"), [(DEFINITION, []), ("F(2x2)", [2]), ("F(4x4)", [4])])
def test_a_chosen_algorithm_is_taken_through_all_passes(algorithm: str, expected: list[int]) -> None:
    graph = inference()
    choices = chosen(contracted(graph), Choice(algorithm), "F(4x4)")
    _, main = split_prepare(graph, choices)
    assert tiles(lower(main, replace(OPTIONS, choices=choices)).simplified) == expected


def test_the_less_exact_tile_is_not_taken_where_kernels_change() -> None:
    graph = training()
    choices = chosen(contracted(graph), Choice("F(4x4)"))
    assert tiles(choose_algorithms(graph, choices)) == tiles(choose_algorithms(graph)) == [2]


def test_programs_of_other_choices_have_other_keys_and_tell_what_rounds_otherwise() -> None:
    graph = inference()
    node = contracted(graph)
    winograd = chosen(node, Choice("F(2x2)"), "F(4x4)")
    division = chosen(node, Choice(DEFINITION, other_divisions(node, machine_for(OPTIONS))[0]))
    options = [replace(OPTIONS, choices=choices) for choices in (Choices(), winograd, division)]
    assert len({cache_key(graph, each) for each in options}) == len(options)
    none, (note,), same = (compile_graph(graph, each).notes for each in options)
    assert none == same == ()
    assert "F(2x2) instead of F(4x4), which rounds otherwise" in note


# Tuning.


def test_each_candidate_is_chosen_when_it_is_the_fastest() -> None:
    graph = inference(8, 128)
    (kind,) = autotune.kinds(graph)
    found = autotune.candidates(kind, OPTIONS)
    assert {candidate.algorithm for candidate in found} >= {"F(2x2)", "F(4x4)"}
    for place, candidate in enumerate(found):
        departures = tune(graph, prefer(place)).choices.departures
        assert departures == ((Departure(kind.name, candidate, found[0].algorithm),) if place else ())


def test_what_is_hardly_faster_is_left_to_the_cost_model() -> None:
    graph = product()
    assert not tune(graph, Scale(lambda place: 1 - 0.5 * autotune.MARGIN * (place > 0))).choices.departures
    assert tune(graph, Scale(lambda place: 1 - 2 * autotune.MARGIN * (place > 0))).choices.departures


def test_candidates_are_different_programs() -> None:
    codes: list[list[tuple[bytes, ...]]] = []

    def measure(programs: Sequence[Program], footprint: int) -> list[float]:
        codes.append([program.code for program in programs])
        return [1.0] * len(programs)

    for graph in (inference(8, 128), training(8, 128), product(), contraction("conv2d_kernel_grad")):
        autotune.tune(graph, OPTIONS, measure, 1e9, Kept())
    assert len(codes) == 4
    assert all(len(set(code)) == len(code) > 1 for code in codes)


def test_kernels_that_change_are_transformed_in_what_is_measured() -> None:
    seen: list[str] = []

    def measure(programs: Sequence[Program], footprint: int) -> list[float]:
        seen.extend(name for program in programs for name in program.schedule)
        return [1.0] * len(programs)

    autotune.tune(training(), OPTIONS, measure, 1e9, Kept())
    changing, seen = any("winograd_kernel" in call for call in seen), []
    autotune.tune(inference(), OPTIONS, measure, 1e9, Kept())
    assert changing and not any("winograd_kernel" in call for call in seen)


def two_products() -> Graph:
    """A small product before a larger one, and the small one once more."""
    graph = Graph("two")
    with building(graph):
        x, w = graph.input("x", TensorType(F32, (64, 64))), graph.input("w", TensorType(F32, (64, 64)))
        wide = graph.input("wide", TensorType(F32, (64, 640)))
        hidden = ops.tanh(graph.apply(Matmul(), x, w))
        graph.output("y", graph.apply(Matmul(), ops.tanh(graph.apply(Matmul(), hidden, w)), wide))
    return graph


def test_kinds_are_measured_once_the_heaviest_first() -> None:
    names = [(kind.name, kind.work) for kind in autotune.kinds(two_products())]
    assert [work for _, work in names] == [64 * 64 * 640, 2 * 64**3]
    measure = prefer(0)
    tuning = tune(two_products(), measure)
    assert len(measure.asked) == tuning.measured == 2 and tuning.left == 0


def test_what_is_known_is_not_measured_again() -> None:
    kept, measure = Kept(), prefer(1)
    first = tune(two_products(), measure, kept=kept)
    again = tune(two_products(), measure, seconds=0, kept=kept)
    assert len(measure.asked) == first.measured == 2
    assert (again.measured, again.left) == (0, 0)
    assert again.choices == first.choices != Choices()


def test_nothing_is_measured_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(autotune.time, "monotonic", lambda: now[0])

    def measure(programs: Sequence[Program], footprint: int) -> list[float]:
        now[0] += 10
        return [2.0, *[1.0] * (len(programs) - 1)]

    for seconds, measured in ((0, 0), (5, 1), (15, 2)):
        now[0] = 0
        tuning = autotune.tune(two_products(), OPTIONS, measure, seconds, Kept())
        assert (tuning.measured, tuning.left) == (measured, 2 - measured)
        assert len(tuning.choices.departures) == measured
        assert measured != 1 or "640" in tuning.choices.departures[0].kind


@pytest.mark.parametrize(
    "text", ["", "[]", "[1.0]", "nonsense", '["1", 2]', "[0.0, 1.0, 1.0, 1.0]", "[NaN, 1, 1, 1]", "3"]
)
def test_a_record_that_makes_no_sense_is_measured_anew(text: str) -> None:
    kept, measure = Kept(), prefer(0)
    tune(product(), measure, kept=kept)
    kept.texts = dict.fromkeys(kept.texts, text)
    assert tune(product(), measure, kept=kept).measured == 1
    assert tune(product(), measure, kept=kept).measured == 0


def test_what_a_measurement_depends_on_is_in_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, measure = Kept(), prefer(0)
    for graph in (inference(8, 128), training(8, 128)):  # kernels transformed before, or within the step
        autotune.tune(graph, OPTIONS, measure, 1e9, kept)
    autotune.tune(inference(8, 128), replace(OPTIONS, cores=3), measure, 1e9, kept)
    autotune.tune(inference(8, 128), replace(OPTIONS, target=replace(OPTIONS.target, l2=1 << 22)), measure, 1e9, kept)
    for role in ("argument", "parameter"):  # weights may lie in panels
        autotune.tune(product(role=role), OPTIONS, measure, 1e9, kept)
    monkeypatch.setattr(autotune, "code_version", lambda: "another")
    autotune.tune(inference(8, 128), OPTIONS, measure, 1e9, kept)
    assert len(kept.texts) == len(measure.asked) == 7


def test_networks_of_other_sizes_measure_for_themselves() -> None:
    """Weights that stay in a cache come faster than those of a large network."""
    kept, measure = Kept(), prefer(0)
    for columns, measured in ((200, 1), (201, 1), (6400, 2)):
        graph = product(columns=100)
        with building(graph):
            x = next(value for value in graph.inputs if value.op.attributes["label"] == "x")
            graph.output("z", graph.apply(Matmul(), x, graph.input("v", TensorType(F32, (33, columns)))))
        assert tune(graph, measure, kept=kept).measured == measured + (columns == 200)


def test_the_report_says_what_was_chosen_and_what_rounds_otherwise() -> None:
    text = str(tune(inference(8, 128), prefer(1)))
    assert "measured 1 of 1 kinds" in text and "which rounds otherwise" in text and "1e+03 ms" in text
    text = str(tune(product(), prefer(1)))
    assert "vectors a panel" in text and "rounds otherwise" not in text
