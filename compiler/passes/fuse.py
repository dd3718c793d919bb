"""Fusion: divides a graph's nodes into groups that become one kernel each, by kind of op and never by its name.

Nodes are visited in topological order. A cheap node that reads no group's result is computed anew wherever it is read
(a *prologue* of its readers). Any other elementwise node joins a group that computes one of its operands at the same
positions (an *epilogue* of a contraction or reduction, a longer chain, a row-wise group), and else begins a group.
Reductions over trailing axes turn the chain that feeds them into a row-wise group. No joining may close a cycle
between groups. Every decision is recorded with its reason.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gradloom.compiler.ir import Constant, Graph, Group, Input, Value
from gradloom.compiler.ops.base import Contraction, Elementwise, Inline, Movement, Reduction, Scatter, Windowed
from gradloom.compiler.ops.movement import Reshape
from gradloom.compiler.passes.reading import Labels, labels_below, reaches, reads, storage
from gradloom.compiler.types import BF16

PROLOGUE_COST = 8
"""Instructions per element up to which a node is computed anew by each of its readers."""

TRIFLE = 2
"""Instructions per element up to which readers compute a result again, if all that it needs is in memory anyway."""

SMALL = 1024
"""Elements up to which unconnected groups of one domain are put together, to save kernels."""

MOST_MEMBERS = 256
"""Nodes that join one kernel."""

DEEPEST = 32
"""Nodes that are computed one inside of another: a longer chain goes on in another kernel.

Kernels are emitted by calls as deep as that. The deepest chain of Darknet53's train step has 17 nodes.
"""

DEEPEST_PROLOGUE = 16
"""The same for what is computed anew by each reader."""

NEAR = 16
"""How many groups back such a partner is looked for."""


@dataclass(frozen=True)
class Decision:
    """Whether `node` was fused into the kernel of `partner`, and why."""

    node: Value
    partner: Value
    fused: bool
    reason: str

    def __str__(self) -> str:
        verb = "joins" if self.fused else "stays apart from"
        return f"{self.node!r} {verb} %{self.partner.number}: {self.reason}"


@dataclass(eq=False)
class _Draft:
    """A group while it grows: `domain` is the shape it runs over, `rows` the number of its axes that count rows."""

    kind: str
    domain: tuple[int, ...]
    axes: tuple[int, ...] = ()
    members: list[Value] = field(default_factory=list)
    needs: set[_Draft] = field(default_factory=set)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of what a reduction or contraction leaves to its epilogue."""
        return tuple(size for axis, size in enumerate(self.domain) if axis not in self.axes)

    @property
    def full(self) -> bool:
        """Whether no node may join any more."""
        return len(self.members) >= MOST_MEMBERS

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a node of this shape is computed at the group's positions."""
        if self.kind == "rows":
            kept = len(self.result_shape)
            narrow = shape[:kept] == self.result_shape and all(size == 1 for size in shape[kept:])
            return narrow or shape == self.domain
        return self.kind != "scatter" and shape == self.result_shape


def fuse(graph: Graph, enabled: bool = True) -> tuple[Graph, list[Decision]]:
    """Return a copy of the graph with its groups, and the decisions that led to them.

    Without `enabled`, every node is a kernel of its own.
    """
    copy, _ = graph.rebuild()
    fusion = _Fusion(copy, enabled)
    fusion.run()
    copy.groups = tuple(fusion.finish())
    return copy, fusion.decisions


class _Fusion:
    def __init__(self, graph: Graph, enabled: bool) -> None:
        self.graph = graph
        self.enabled = enabled
        self.decisions: list[Decision] = []
        self.drafts: list[_Draft] = []
        self.home: dict[Value, _Draft] = {}
        self.depth: dict[Value, int] = {}
        self.prologues: set[Value] = set()
        self.wanted = {storage(output.value) for output in graph.outputs}
        # The windows of a convolution overlap: what it reads is computed once, and lies in memory.
        self.wanted.update(
            storage(value.inputs[0]) for value in graph.values if isinstance(value.op, Windowed) and enabled
        )
        self.users = graph.users()

    def run(self) -> None:
        for value in self.graph.values:
            if not isinstance(value.op, Input | Constant):
                self._place(value)

    def _place(self, value: Value) -> None:
        if not self.enabled and not isinstance(value.op, Reshape):
            kind = {Reduction: "reduce", Contraction: "contraction", Scatter: "scatter"}
            name = next((name for base, name in kind.items() if isinstance(value.op, base)), "map")
            self._begin(value, self._reduction_kind(value) if name == "reduce" else name)
        elif isinstance(value.op, Reduction):
            self._place_reduction(value)
        elif isinstance(value.op, Contraction | Scatter):
            self._begin(value, "contraction" if isinstance(value.op, Contraction) else "scatter")
        elif isinstance(value.op, Movement):
            self._place_movement(value)
        else:
            self._place_elementwise(value)

    # One node at a time.

    def _place_movement(self, value: Value) -> None:
        """A movement is an index map in whoever reads it, unless its result is asked for."""
        # A reshape has no memory of its own.
        if isinstance(value.op, Reshape) or self._cheap(value):
            self.prologues.add(value)
        else:
            self._begin(value, "map")

    def _place_elementwise(self, value: Value) -> None:
        assert isinstance(value.op, Inline)
        drafts = self._drafts_read(value)
        # Readers take bf16 out of memory and widen it themselves.
        widened = value not in self.wanted and all(operand.dtype == BF16 for operand in value.inputs)
        if widened or (not drafts and self._cheap(value)):
            self.prologues.add(value)
            return
        joined: _Draft | None = None
        for draft, partner in drafts.items():
            reason = self._refusal(value, draft)
            if reason is None and joined is None:
                joined = draft
                self._join(value, draft)
            elif reason is None and joined and draft.kind == "map" and self._may_merge(joined, draft):
                self._merge(joined, draft)
            self._record(value, partner, reason)
        if joined is None and self._cheap(value):
            self.prologues.add(value)
        elif joined is None:
            self._begin_or_near(value, "map")

    def _place_reduction(self, value: Value) -> None:
        kind = self._reduction_kind(value)
        (operand,) = value.inputs
        axes = value.op.axes  # type: ignore[attr-defined]
        for draft, partner in self._drafts_read(value).items():
            reason = self._reduction_refusal(value, kind, draft)
            self._record(value, partner, reason)
            if reason is None:
                draft.kind, draft.domain, draft.axes = kind, operand.shape, axes
                self._join(value, draft)
                return
        for draft in self._near(value, kind, operand.shape, axes):
            shared = self._sources(operand) & {
                source
                for member in draft.members
                if isinstance(member.op, Reduction)
                for source in self._sources(member.inputs[0])
            }
            if (shared or math.prod(operand.shape) <= SMALL) and not self._closes_cycle(value, draft):
                self.decisions.append(Decision(value, draft.members[0], True, "reduces the same positions"))
                self._join(value, draft)
                return
        self._begin(value, kind)

    @staticmethod
    def _reduction_kind(value: Value) -> str:
        """Kind "rows" when the trailing axes are reduced, "reduce" when the last axis is kept."""
        rank = value.inputs[0].type.rank
        axes: tuple[int, ...] = value.op.axes  # type: ignore[attr-defined]
        return "rows" if axes == tuple(range(rank - len(axes), rank)) else "reduce"

    # Why not.

    def _refusal(self, value: Value, draft: _Draft) -> str | None:
        """Why an elementwise node cannot be computed in a group, or None if it can."""
        if draft.kind == "scatter":
            return "a scatter has no epilogue"
        if (full := self._full(value, draft)) is not None:
            return full
        if not draft.takes(value.shape):
            return f"its shape {value.shape} is not the kernel's {draft.result_shape}"
        if not self._aligned(value, draft):
            return "it reads the kernel's result at other positions than its own"
        if self._closes_cycle(value, draft):
            return "another operand needs a kernel that needs this one"
        return None

    def _full(self, value: Value, draft: _Draft) -> str | None:
        """Why a group takes no more nodes, or not this one."""
        if draft.full:
            return f"the kernel has {MOST_MEMBERS} nodes already"
        if self._depth(value, draft) > DEEPEST:
            return f"the kernel computes {DEEPEST} nodes one inside of another already"
        return None

    def _reduction_refusal(self, value: Value, kind: str, draft: _Draft) -> str | None:
        (operand,) = value.inputs
        axes = value.op.axes  # type: ignore[attr-defined]
        if (full := self._full(value, draft)) is not None:
            return full
        if draft.kind == "map":
            if draft.domain != operand.shape:
                return f"the kernel runs over {draft.domain}, not over {operand.shape}"
            if kind == "reduce" and (len(self.users[operand]) > 1 or self._read_elsewhere(draft, value)):
                return "what feeds it is needed in memory besides"
        elif (draft.kind, draft.domain, draft.axes) != (kind, operand.shape, axes):
            return f"the kernel is a {draft.kind} over other axes"
        elif kind == "reduce" and self._reads_reduced(value, draft):
            return "it needs what the kernel has reduced"
        if not self._aligned(value, draft):
            return "it reads the kernel's result at other positions than its own"
        if self._closes_cycle(value, draft):
            return "another operand needs a kernel that needs this one"
        return None

    def _reads_reduced(self, value: Value, draft: _Draft) -> bool:
        """Whether the node reads a reduction of the group, or what is computed from one."""
        reduced: set[Value] = set()
        for member in sorted(draft.members, key=lambda member: member.number):
            below = {leaf for operand in member.inputs for leaf in self._below(operand)}
            if isinstance(member.op, Reduction) or below & reduced:
                reduced.add(member)
        return any(leaf in reduced for operand in value.inputs for leaf in self._below(operand))

    def _read_elsewhere(self, draft: _Draft, reader: Value) -> bool:
        """Whether a member of the group is an output, or has a reader outside it other than `reader`."""
        inside = {*draft.members, reader}
        return any(
            member in self.wanted or any(user not in inside for user in self.users[member]) for member in draft.members
        )

    def _aligned(self, value: Value, draft: _Draft) -> bool:
        """Whether all that the node reads of the group lies at the node's own position."""
        shape = value.inputs[0].shape if isinstance(value.op, Reduction) else value.shape
        own = tuple(range(len(shape)))
        members = set(draft.members)
        for operand in value.inputs:
            start: Labels = own
            if isinstance(value.op, Elementwise):
                start = own[len(own) - operand.type.rank :]
            elif not isinstance(value.op, Reduction):
                # A gather reads rows that are known when it runs.
                start = (None,) * operand.type.rank
            for leaf, labels in self._leaves(operand, start):
                if leaf in members and any(
                    label != axis
                    for axis, (label, size) in enumerate(zip(labels, leaf.shape, strict=True))
                    if size != 1
                ):
                    return False
        return True

    def _leaves(self, value: Value, labels: Labels) -> Iterator[tuple[Value, Labels]]:
        """What a read of `value` comes down to: members of groups, each with its labels (see `labels_below`)."""
        if value in self.home or isinstance(value.op, Input | Constant):
            yield value, labels
            return
        for operand in value.inputs:
            yield from self._leaves(operand, labels_below(value, operand, labels))

    # Groups.

    def _cheap(self, value: Value, most: int = PROLOGUE_COST, least: int = 0) -> bool:
        """Whether every reader may compute a node for itself: what has less than `least` elements costs nothing."""
        cheap = self._depth(value) <= DEEPEST_PROLOGUE and self._cost(value, least) <= most
        return cheap and value not in self.wanted

    def _cost(self, value: Value, least: int) -> int:
        """Instructions per element of a node and of all that is computed anew for it."""
        assert isinstance(value.op, Inline)
        below = sum(self._cost(operand, least) for operand in value.inputs if operand in self.prologues)
        if value.type.size < least:
            return below
        # Which of several operands is moved where is found out with every read.
        choice = len(value.inputs) if isinstance(value.op, Movement) and len(value.inputs) > 1 else 0
        return value.op.cost + choice + below

    def _depth(self, value: Value, draft: _Draft | None = None) -> int:
        """How many nodes are computed one inside of the other, counted from what `draft` reads in memory."""
        return 1 + max((self._depth_read(operand, draft) for operand in reads(value)), default=0)

    def _depth_read(self, value: Value, draft: _Draft | None) -> int:
        if value in self.home:
            return self.depth[value] if self.home[value] is draft else 0
        return self._depth(value, draft) if value in self.prologues else 0

    def _drafts_read(self, value: Value) -> dict[_Draft, Value]:
        """The groups whose results the node reads, directly or through prologues; the latest first."""
        found: dict[_Draft, Value] = {}
        for operand in value.inputs:
            for leaf in self._below(operand):
                found.setdefault(self.home[leaf], leaf)
        return dict(sorted(found.items(), key=lambda item: -item[1].number))

    def _below(self, value: Value) -> Iterator[Value]:
        if value in self.home:
            yield value
        elif value in self.prologues:
            for operand in value.inputs:
                yield from self._below(operand)

    def _sources(self, value: Value) -> set[Value]:
        """The large tensors in memory that a value comes down to."""
        if value in self.home or isinstance(value.op, Input | Constant):
            return {value} if abs(value.type.size) > SMALL else set()
        return set[Value]().union(*map(self._sources, value.inputs))

    def _begin(self, value: Value, kind: str) -> None:
        reduction = isinstance(value.op, Reduction)
        domain = value.inputs[0].shape if reduction else value.shape
        draft = _Draft(kind, domain, value.op.axes if reduction else ())  # type: ignore[attr-defined]
        self.drafts.append(draft)
        self._join(value, draft)

    def _begin_or_near(self, value: Value, kind: str) -> None:
        """Begin a group, or join an unconnected small one that runs over the same positions."""
        if value.type.size <= SMALL:
            for draft in self._near(value, kind, value.shape, ()):
                if not self._closes_cycle(value, draft):
                    reason = "small, and computed at the same positions without being connected"
                    self.decisions.append(Decision(value, draft.members[0], True, reason))
                    self._join(value, draft)
                    return
        self._begin(value, kind)

    def _near(self, value: Value, kind: str, domain: tuple[int, ...], axes: tuple[int, ...]) -> Iterator[_Draft]:
        """Groups over the same positions that the node does not read: those that it reads have refused it already."""
        read = self._drafts_read(value)
        for draft in self.drafts[: -NEAR - 1 : -1]:
            if (draft.kind, draft.domain, draft.axes) == (kind, domain, axes) and draft not in read and not draft.full:
                yield draft

    def _join(self, value: Value, draft: _Draft) -> None:
        draft.needs |= self._drafts_read(value).keys() - {draft}
        draft.members.append(value)
        self.depth[value] = self._depth(value, draft)
        self.home[value] = draft

    def _may_merge(self, into: _Draft, draft: _Draft) -> bool:
        """Whether `draft` may become part of `into`: neither needs the other through a third group."""
        return (
            len(into.members) + len(draft.members) <= MOST_MEMBERS
            and sum(max(map(self.depth.__getitem__, either.members)) for either in (into, draft)) <= DEEPEST
            and all(into.takes(member.shape) for member in draft.members)
            and not reaches(draft.needs - {into}, into, _needs)
            and not reaches(into.needs - {draft}, draft, _needs)
        )

    def _merge(self, into: _Draft, draft: _Draft) -> None:
        """Put all of `draft` into `into`."""
        into.members = sorted({*into.members, *draft.members}, key=lambda member: member.number)
        into.needs = (into.needs | draft.needs) - {into, draft}
        self.home.update(dict.fromkeys(draft.members, into))
        for member in into.members:
            self.depth[member] = self._depth(member, into)
        self.drafts.remove(draft)
        for other in self.drafts:
            if draft in other.needs:
                other.needs = other.needs - {draft} | {into}

    def _closes_cycle(self, value: Value, draft: _Draft) -> bool:
        """Whether another group that the node reads needs `draft`, directly or not."""
        return reaches(self._drafts_read(value).keys() - {draft}, draft, _needs)

    def _record(self, value: Value, partner: Value, refusal: str | None) -> None:
        self.decisions.append(Decision(value, partner, refusal is None, refusal or "computed at the same positions"))

    # The result.

    def finish(self) -> Iterator[Group]:
        """The groups with their prologues and results; decisions that they overrule are forgotten."""
        self._recompute_trifles()
        read = self._read_between()
        kernels = defaultdict[Value, set[_Draft]](set)
        for draft in self.drafts:
            members = sorted({*draft.members, *self._prologues(draft)}, key=lambda member: member.number)
            results = tuple(member for member in sorted(draft.members, key=lambda m: m.number) if member in read)
            if results:
                # What only recomputed prologues needed is left over, and not computed.
                self._record_prologues(members)
                for member in members:
                    kernels[member].add(draft)
                yield Group(_name(self.graph, draft.members), draft.kind, tuple(members), results)
        # What is computed anew by its readers after all is not in the kernel that it had joined.
        self.decisions = [one for one in self.decisions if not one.fused or kernels[one.node] & kernels[one.partner]]

    def _record_prologues(self, members: Iterable[Value]) -> None:
        """Record what a kernel computes for itself; a reshape is no computation."""
        inside = set(members)
        for value in members:
            if value in self.prologues and not isinstance(value.op, Reshape):
                reader = next(user for user in self.users[value] if user in inside)
                self.decisions.append(Decision(value, reader, True, "so cheap that each kernel computes it anew"))

    def _recompute_trifles(self) -> None:
        """Turn results into prologues of their readers where that needs nothing else in memory.

        The mask of ReLU's gradient is computed again from the activation instead of being stored beside it.
        """
        read = self._read_between()
        for value in sorted(read - self.wanted, key=lambda value: value.number):
            if not isinstance(value.op, Elementwise) or not self.enabled:
                continue
            leaves = {leaf for operand in value.inputs for leaf in self._below(operand)}
            # Statistics of channels are small beside what is computed from them.
            if self._cheap(value, TRIFLE, least=value.type.size) and leaves <= read - {value}:
                self.home.pop(value).members.remove(value)
                self.prologues.add(value)
                read.remove(value)

    def _prologues(self, draft: _Draft) -> set[Value]:
        found: set[Value] = set()
        waiting = [operand for member in draft.members for operand in member.inputs]
        while waiting:
            value = waiting.pop()
            if value in self.prologues and value not in found:
                found.add(value)
                waiting.extend(value.inputs)
        return found

    def _read_between(self) -> set[Value]:
        """The values that must lie in memory: outputs, and what one group reads of another."""
        read = {value for value in self.wanted if value in self.home}
        for draft in self.drafts:
            inside = {*draft.members, *self._prologues(draft)}
            for member in inside:
                read.update(leaf for operand in member.inputs for leaf in self._below(operand) if leaf not in inside)
        return read


def _needs(draft: _Draft) -> set[_Draft]:
    return draft.needs


def _name(graph: Graph, members: list[Value]) -> str:
    """What the kernel is called: the layers that its nodes come from, and its ops."""
    layers = sorted({origin.layer for member in members for origin in graph.provenance[member] if origin.layer})
    ops = "+".join(member.op.name for member in members[:4]) + ("+…" if len(members) > 4 else "")
    return f"{','.join(layers[:2])}/{ops}" if layers else ops
