"""Scheduling: results written onto donated memory, copies where that cannot be, kernels in an order that fits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import assert_close, assert_same, run_program
from gradloom.compiler import ops, pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.schedule import Scheduler
from gradloom.compiler.types import F32, TensorType
from mlp_step import lowered
from op_cases import CASES, OpCase

SHAPE = (6, 40)


class Step:
    """A graph of states and arguments under construction."""

    def __init__(self, *names: str, shape: tuple[int, ...] = SHAPE) -> None:
        self.graph = Graph("step")
        self.values = {name: self.graph.input(name, TensorType(F32, shape), "state") for name in names}

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def becomes(self, name: str, value: Value) -> None:
        """The state's new value."""
        self.graph.output(name, value, self.values[name])

    def lowered(self, **options: Any) -> pipeline.Lowering:
        return pipeline.lower(self.graph, pipeline.Options(cores=2, **options))

    def check(self, steps: int = 3) -> list[str]:
        """Run steps compiled and interpreted; returns the scheduler's notes."""
        return check_steps(self.graph, steps)


def check_steps(graph: Graph, steps: int = 3) -> list[str]:
    """Compare several steps in one call with as many interpreted ones, fused and not, with one thread and two."""
    rng = np.random.default_rng(0)
    arrays = {value.op.attributes["label"]: rng.normal(size=value.shape).astype(np.float32) for value in graph.inputs}
    expected: dict[str, np.ndarray] = {}
    state = dict(arrays)
    for _ in range(steps):
        expected = interpret(graph, state)
        for output in graph.outputs:
            if output.donor is not None:
                state[output.donor.op.attributes["label"]] = expected[output.name]
    notes: list[str] = []
    for options in ({"fuse": False}, {"simplify": False}, {}):
        program = pipeline.compile_graph(graph, pipeline.Options(cores=2, **options))
        got = run_program(program, graph, arrays, 1, steps)
        assert_close(got, expected, graph)
        assert_same(run_program(program, graph, arrays, 2, steps), got, graph)
        notes = list(program.notes)
    return notes


# Outlines.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_outline_divides_what_it_writes_as_the_whole_kernel(case: OpCase) -> None:
    assert_outlined(pipeline.lower(case.graph(), pipeline.Options(cores=2, block_cost=8)))


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_the_outline_of_a_train_step_wishes_for_the_same_panels(cores: int) -> None:
    low = lowered(cores=cores)
    assert assert_outlined(low)


def assert_outlined(low: pipeline.Lowering) -> dict[Value, int]:
    """Compare an outline with a schedule in which nothing lies in panels; return the panels that they wish for."""
    found = []
    for outline in (True, False):
        scheduler = Scheduler(low.fused, pipeline.machine_for(low.options), low.options.choices)
        scheduler.begin({}, outline)
        launches = list(scheduler.run())
        written = [
            {buffer.name: footprint.partitions for buffer, footprint in launch.footprints.items() if footprint.writes}
            for launch in launches
        ]
        found.append((written, scheduler.panels(launches)))
    assert found[0] == found[1]
    return found[0][1]


# Donation.


def test_an_update_of_one_kernel_is_written_in_place() -> None:
    step = Step("w", "g")
    step.becomes("w", step["w"] - ops.tanh(step["g"]) * 0.1)
    assert step.check() == []
    low = step.lowered()
    assert not low.memory.slots
    (launch,) = low.scheduled.launches
    assert len(launch.buffers) == 2
    assert [argument.written for argument in low.arguments] == [True, False]


def test_readers_of_the_old_value_run_before_it_is_replaced() -> None:
    """The update comes first in the graph, another reader of the old value after it."""
    step = Step("w", "other", shape=(40, 40))
    step.becomes("w", step["w"] * 0.5)
    step.graph.output("y", ops.matmul(step["other"], step["w"]))
    assert step.check() == []
    kinds = [launch.group.kind for launch in step.lowered().scheduled.launches]
    assert kinds == ["contraction", "map"]


def test_a_later_reader_of_the_old_value_forces_a_copy() -> None:
    """The new value is needed to compute something together with the old one."""
    step = Step("w", shape=(40, 40))
    new = ops.tanh(step["w"])
    step.becomes("w", new)
    step.graph.output("y", ops.matmul(ops.matmul(new, new), step["w"]))
    (note,) = step.check()
    assert note == "w is copied onto its donor at the end: a later kernel reads the old value"
    assert step.lowered().scheduled.launches[-1].group.name == "copy/w"


def test_a_kernel_that_reads_other_positions_forces_a_copy() -> None:
    step = Step("w", shape=(40, 40))
    step.becomes("w", ops.transpose(step["w"]) * 0.5)
    (note,) = step.check()
    assert note == "w is copied onto its donor at the end: its own kernel reads the old value at other positions"


@pytest.mark.parametrize(
    "name", ["reverse", "shift", "gather", "row mean", "column mean", "softmax", "product", "broadcast"]
)
def test_values_are_right_wherever_the_old_value_is_read(name: str) -> None:
    step = Step("w", shape=(40, 40))
    w = step["w"]
    with building(step.graph):
        step.becomes(
            "w",
            {
                "reverse": lambda: w + ops.flip(w, 1),
                "shift": lambda: w + ops.concatenate([w[1:], w[:1]], axis=0),
                "gather": lambda: ops.take(w, np.arange(39, -1, -1, dtype=np.int32), axis=0) * 0.5,
                "row mean": lambda: w - ops.mean(w, axis=1, keepdims=True),
                "column mean": lambda: w - ops.mean(w, axis=0, keepdims=True),
                "softmax": lambda: ops.softmax(w),
                "product": lambda: w - 0.01 * ops.matmul(ops.transpose(w), w),
                "broadcast": lambda: w * 0.5 + w[:1],
            }[name](),
        )
    step.check()


def test_two_states_are_swapped() -> None:
    step = Step("a", "b")
    step.becomes("a", step["b"])
    step.becomes("b", step["a"])
    notes = step.check(steps=3)
    assert len(notes) == 2


def test_two_states_are_swapped_with_a_computation() -> None:
    step = Step("a", "b")
    step.becomes("a", step["b"] * 0.5)
    step.becomes("b", ops.tanh(step["a"]))
    step.check()
    # Unequal shapes of kernels: each overwrites what the other needs.
    step = Step("a", "b", shape=(40, 40))
    step.becomes("a", ops.matmul(step["b"], step["b"]) * 0.01)
    step.becomes("b", ops.tanh(step["a"]))
    notes = step.check()
    assert len(notes) == 1, "one of the two can be written in place, before or after the other"


def test_three_states_rotate() -> None:
    step = Step("a", "b", "c")
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        step.becomes(name, step[other])
    step.check(steps=4)


def test_a_state_that_stays() -> None:
    step = Step("a")
    step.becomes("a", step["a"])
    assert step.check() == []
    assert not step.lowered().scheduled.launches


def test_an_output_that_is_an_input() -> None:
    """The copy is made before the input can be overwritten."""
    step = Step("a")
    step.graph.output("old", step["a"])
    step.becomes("a", step["a"] + 1.0)
    assert step.check() == []


def test_an_input_that_another_state_takes_over() -> None:
    """The state before the update, kept for the next step."""
    step = Step("now", "before")
    step.becomes("before", step["now"])
    step.becomes("now", step["now"] * 0.5 + step["before"] * 0.1)
    step.check(steps=4)


def test_one_value_twice() -> None:
    step = Step("a", "b", "x")
    new = ops.tanh(step["x"])
    step.becomes("a", new)
    step.becomes("b", new)
    step.graph.output("y", new)
    step.graph.output("z", new)
    notes = step.check()
    assert notes == ["b is copied onto its donor at the end: its kernel writes it elsewhere already"]


def test_an_output_that_is_a_constant() -> None:
    step = Step("a", shape=(2, 3))
    constant = step.graph.constant(np.arange(6, dtype=np.float32).reshape(2, 3))
    step.graph.output("y", constant)
    step.graph.output("scalar", step.graph.constant(2.5, F32))
    step.becomes("a", constant)
    (note,) = step.check()
    assert "no kernel computes it" in note


def test_a_reshaped_output_is_written_where_it_belongs() -> None:
    step = Step("x")
    step.graph.output("y", ops.reshape(ops.tanh(step["x"]), (40, 6)))
    step.check()
    low = step.lowered()
    assert not low.memory.slots and len(low.scheduled.launches) == 1


def test_a_reshape_of_an_input_is_copied_once() -> None:
    step = Step("x")
    step.graph.output("y", ops.reshape(step["x"], (240,)))
    step.check()
    assert len(step.lowered().scheduled.launches) == 1


def test_a_reshaped_value_under_two_shapes() -> None:
    step = Step("x")
    y = ops.tanh(step["x"])
    step.graph.output("y", y)
    step.graph.output("flat", ops.reshape(y, (240,)))
    step.becomes("x", ops.reshape(ops.reshape(y, (240,)) * 2.0, SHAPE))
    step.check()


def test_results_are_computed_before_memory_that_they_share_is_written() -> None:
    """One kernel, two states, each computed from both old ones."""
    step = Step("a", "b")
    step.becomes("a", ops.tanh(step["a"] + step["b"]))
    step.becomes("b", ops.tanh(step["a"] - step["b"]))
    assert step.check() == []


def combined(kind: str, x: Value, y: Value) -> Value:
    """Another value of the same shape."""
    return {
        "add": lambda: (x + y) * 0.5,
        "tanh": lambda: ops.tanh(x) * 0.5,
        "transpose": lambda: ops.transpose(x) * 0.5 + y * 0.25,
        "flip": lambda: ops.flip(x, 0),
        "product": lambda: ops.tanh(ops.matmul(x, y) * 0.1),
        "mean": lambda: x - ops.mean(y, axis=0, keepdims=True),
        "rows": lambda: ops.softmax(x),
        "scale": lambda: x * 0.5,
    }[kind]()


@settings(max_examples=40, derandomize=True, database=None)
@given(st.data())
def test_random_updates_of_states(data: Any) -> None:
    """Any state may become anything: combinations, permuted positions, other states, products, earlier values."""
    names = ["a", "b", "c"]
    shape = data.draw(st.sampled_from([(5, 5), (20, 20), (70, 70)]))
    step = Step(*names, shape=shape)
    pool = [step[name] for name in names]
    with building(step.graph):
        for _ in range(data.draw(st.integers(1, 6))):
            x, y = data.draw(st.sampled_from(pool)), data.draw(st.sampled_from(pool))
            kind = data.draw(st.sampled_from(["add", "tanh", "transpose", "flip", "product", "mean", "rows", "scale"]))
            pool.append(combined(kind, x, y))
        for name in names:
            if data.draw(st.integers(0, 4)):
                step.becomes(name, data.draw(st.sampled_from(pool)))
        if data.draw(st.booleans()) or not step.graph.outputs:
            step.graph.output("y", data.draw(st.sampled_from(pool)))
    step.check()


# The train step.


def test_the_train_step_writes_every_state_in_place() -> None:
    for optimizer in ("sgd", "adam"):
        low = lowered(optimizer=optimizer)
        assert low.scheduled.notes == []
        assert not any(launch.group.name.startswith("copy/") for launch in low.scheduled.launches)


def test_the_parameters_are_read_and_written_by_their_own_memory() -> None:
    """The update of the weights touches them, what it multiplies and the rate: no other memory."""
    low = lowered()
    names = {buffer: argument.name for buffer, argument in arguments_by_buffer(low).items()}
    (update,) = (
        launch
        for launch in low.scheduled.launches
        if any(names.get(b) == "hidden/kernel" and f.writes for b, f in launch.footprints.items())
    )
    touched = {names.get(buffer, "intermediate") for buffer in update.buffers}
    assert touched == {"hidden/kernel", "x", "rows", "sgd/learning_rate", "intermediate"}
    assert sum(buffer not in names for buffer in update.buffers) == 1


def arguments_by_buffer(low: pipeline.Lowering) -> dict[Any, Any]:
    places = low.scheduled.places
    return {
        buffer: low.scheduled.arguments[pointer.at]
        for buffer, pointer in places.items()
        if pointer.space == "argument" and isinstance(pointer.at, int)
    }
