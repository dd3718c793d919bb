"""`run`: predictions and graphs on given and drawn arrays, their results, and checks of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_runs import NORMALIZED, error, output

from gradloom.command.targets import load_model
from gradloom.compiler import ops
from gradloom.compiler.ir import Graph, Output, building
from gradloom.compiler.ops.elementwise import Exp
from gradloom.compiler.types import BF16, F32, I32, TensorType
from gradloom.drawn_arrays import drawn_arrays
from gradloom.graph_runs import disagreements


@pytest.fixture
def normalized(tmp_path: Path) -> str:
    path = tmp_path / "normalized.py"
    path.write_text("import gradloom as gl\ngl.utils.set_random_seed(1)\n" + NORMALIZED)
    return str(path)


@pytest.fixture
def doubled(tmp_path: Path) -> str:
    """A graph of two inputs and two results."""
    graph = Graph("doubled")
    with building(graph):
        x, y = graph.input("x", TensorType(F32, (2, 3))), graph.input("y", TensorType(I32, (4,)), role="parameter")
        graph.output("file", x * 2.0)
        graph.output("deep/sum", ops.sum(y))
    path = tmp_path / "doubled.ir"
    path.write_text(str(graph))
    return str(path)


def test_a_model_predicts_what_it_predicts_in_python(
    normalized: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).normal(size=(7, 5))
    given, results = tmp_path / "x.npy", tmp_path / "out.npz"
    np.save(given, x)  # In float64, as NumPy has it: the model takes float32.
    text = output(capsys, "run", normalized, "--input", str(given), "--output", str(results), "--check")
    wanted = load_model(normalized).predict(x, verbose=0)
    with np.load(results) as archive:
        assert archive.files == ["predictions"]
        np.testing.assert_array_equal(archive["predictions"], wanted)
    first, result, check = text.splitlines()
    assert first == "inputs: all given"
    assert result.startswith(f"predictions: f32[7,3]  min {wanted.min():.6g}  mean ")
    assert check == "compiled and interpreted results agree"


def test_a_file_of_a_prediction_is_run_as_the_model_is(
    normalized: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file has no weights: given those of the model, it gives the model's results bit by bit."""
    model = load_model(normalized)
    file, arrays = tmp_path / "predict.ir", tmp_path / "arrays.npz"
    output(capsys, "show", normalized, "--stage", "forward", "--output", str(file), "--batch-size", "4")
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.savez(arrays, x=x, **{variable.path: variable.numpy() for variable in model.variables})
    results = tmp_path / "out.npz"
    text = output(capsys, "run", str(file), "--input", str(arrays), "--output", str(results), "--check-fusion")
    assert text.startswith("inputs: all given\n") and "compiled and unfused results agree" in text
    with np.load(results) as archive:
        np.testing.assert_array_equal(archive["predictions"], model.predict(x, batch_size=4, verbose=0))


def test_what_is_not_given_is_drawn_from_the_seed(doubled: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = output(capsys, "run", doubled)
    assert first.splitlines()[0] == "inputs drawn from seed 0: x, y"
    assert output(capsys, "run", doubled, "--random", "0") == first
    other = output(capsys, "run", doubled, "--random", "7")
    assert "seed 7" in other and [line.split()[-1] for line in other.splitlines()[1:]] != [
        line.split()[-1] for line in first.splitlines()[1:]
    ]


def test_inputs_are_given_by_name_or_as_the_only_one(
    doubled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y, results = tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "out.npz"
    np.save(x, np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)))
    np.save(y, np.arange(4, dtype=np.int64))
    told = output(capsys, "run", doubled, "--input", str(x), "--output", str(results))
    assert told.startswith("inputs drawn from seed 0: y\n")
    assert output(capsys, "run", doubled, "--input", f"x={x}").splitlines()[1:] == told.splitlines()[1:]
    output(capsys, "run", doubled, "--input", f"x={x}", "--input", f"y={y}", "--output", str(results))
    with np.load(results) as archive:
        np.testing.assert_array_equal(archive["file"], 2 * np.arange(6, dtype=np.float32).reshape(2, 3))
        assert archive["deep/sum"] == 6


def test_errors_about_inputs(doubled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.npy", tmp_path / "bad.npy"
    np.save(good, np.zeros((2, 4), np.float32))
    bad.write_text("no array")
    assert "Expected one of x, y. Received: xs (did you mean x?)" in error(
        capsys, "run", doubled, "--input", f"xs={good}"
    )
    assert "Expected arrays of numbers" in error(capsys, "run", doubled, "--input", str(bad))
    assert error(capsys, "run", doubled, "--input", "none.npy") == "error: none.npy: No such file or directory"
    assert "--input y: Expected int32. Received: float32" in error(capsys, "run", doubled, "--input", f"y={good}")
    message = error(capsys, "run", doubled, "--input", f"x={good}")
    assert "Expected shape (2, 3). Received: (2, 4)" in message


def test_results_that_differ_have_an_exit_code_of_their_own(
    doubled: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(doubled)
    file.write_text(file.read_text().replace("multiply", "power").replace("sum", "max"))
    monkeypatch.setattr(Exp, "reference", lambda self, x: np.exp(x) + 1)
    graph = Graph("wrong")
    with building(graph):
        graph.output("y", ops.exp(graph.input("x", TensorType(F32, (2, 3)))))
    file.write_text(str(graph))
    message = error(capsys, "run", doubled, "--check", code=3)
    assert message.splitlines()[0] == "compiled and interpreted results differ:"
    assert message.splitlines()[1].startswith("y: 6 of 6 elements differ, most at [")
    assert "compiled and unfused results agree" in output(capsys, "run", doubled, "--check-fusion")


def test_drawn_arrays_do_not_depend_on_other_inputs() -> None:
    one, two = Graph("one"), Graph("two")
    for graph in (one, two):
        graph.outputs = [Output("y", graph.input("x", TensorType(F32, (3,))))]
    two.input("w", TensorType(F32, (3,)), role="state", permutation=(0,))
    assert drawn_arrays(one, 3)["x"].tobytes() == drawn_arrays(two, 3)["x"].tobytes()
    assert set(drawn_arrays(two, 3)["w"]).isdisjoint(np.abs(drawn_arrays(two, 3)["x"]))
    assert drawn_arrays(two, 3)["w"].min() >= 0 > drawn_arrays(two, 3)["x"].min()


def test_indices_lie_within_the_data() -> None:
    graph = Graph("step")
    graph.input("x", TensorType(F32, (-1, 2)), role="data")
    graph.input("rows", TensorType(I32, (500,)), role="indices")
    drawn = drawn_arrays(graph, 0, {"x": np.zeros((3, 2), np.float32)})
    assert set(drawn["rows"]) == {0, 1, 2}
    drawn = drawn_arrays(graph, 0)
    assert drawn["x"].shape == (500, 2) and drawn["rows"].max() < 500


@pytest.mark.parametrize(
    ("got", "wanted", "differs"),
    [
        ([1.0, np.nan], [1.0, np.nan], False),
        ([np.inf], [np.inf], False),
        ([np.inf], [-np.inf], True),
        ([np.nan], [1.0], True),
        ([1.0], [np.nan], True),
        ([1000.0], [1000.1], False),
        ([1.0, 1000.0], [1.5, 1000.0], True),
    ],
)
def test_floats_are_compared_by_the_largest_one(got: list[float], wanted: list[float], differs: bool) -> None:
    arrays = [{"y": np.array(numbers, np.float32)} for numbers in (got, wanted)]
    assert bool(disagreements(*arrays)) is differs


@pytest.mark.parametrize(("got", "differs"), [(3.0, False), (3.015625, False), (3.2, True), (np.nan, True)])
def test_bf16_may_be_rounded_otherwise(got: float, differs: bool) -> None:
    arrays = [{"y": np.array([1.0, number], BF16.numpy)} for number in (got, 3.0)]
    assert bool(disagreements(*arrays)) is differs


def test_integers_shapes_and_dtypes_are_compared_exactly() -> None:
    one, two = {"y": np.array([1, 2])}, {"y": np.array([1, 3])}
    assert disagreements({"y": np.array(1.0)}, {"y": np.array(2.0)}) == [
        "y: 1 of 1 elements differ, most: 1.0 where 2.0 is right"
    ]
    assert disagreements(one, two) == ["y: 1 of 2 elements differ, most at [1]: 2 where 3 is right"]
    assert disagreements({"y": np.zeros(2)}, {"y": np.zeros((2, 1))}) == ["y: float64[2] where float64[2, 1] is right"]
