"""Layered drawing of directed graphs (after Sugiyama): layers, order within them, coordinates, routes of edges.

Work is bounded by counts that follow from the graph's size, never by a clock: the same graph is always drawn the same.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Key = Hashable
Point = tuple[float, float]

GAP = 26.0
"""Between neighbours in a layer."""
LANE = 14.0
"""Between an edge that passes through a layer and its neighbours."""
LAYER_GAP = 30.0
PART_GAP = 44.0
"""Between parts of a graph that nothing connects."""
WORK = 400_000
"""About how many edge segments all ordering sweeps together may look at."""


@dataclass(frozen=True)
class Item:
    """A rectangle to be placed."""

    key: Key
    width: float
    height: float


@dataclass(frozen=True)
class Link:
    """An edge; it leaves and arrives at offsets from the middles of its ends."""

    source: Key
    target: Key
    source_offset: float = 0.0
    target_offset: float = 0.0


@dataclass
class Arrangement:
    """Middles of the items by key, and for each link the points through which it runs, from top to bottom."""

    width: float
    height: float
    places: dict[Key, Point]
    routes: list[list[Point]]


@dataclass
class _Cell:
    """What takes a place in a layer: an item, or a link on its way through."""

    layer: int
    width: float
    item: Item | None = None
    x: float = 0.0
    rank: int = 0
    above: list[_Segment] = field(default_factory=list)
    below: list[_Segment] = field(default_factory=list)


@dataclass
class _Segment:
    """A link's part between adjacent layers; straightness matters most for long links."""

    upper: _Cell
    lower: _Cell
    upper_offset: float
    lower_offset: float
    weight: float


def arrange(items: Sequence[Item], links: Sequence[Link], layers: Mapping[Key, int]) -> Arrangement:
    """Place items so that links run downward, in the layers given. What no link connects is placed side by side."""
    parts = _connected(items, links)
    arranged = [_arrange_connected([items[i] for i in own], [links[i] for i in used], layers) for own, used in parts]
    whole = Arrangement(0.0, 0.0, {}, [[] for _ in links])
    size = {item.key: (item.width, item.height) for item in items}
    silhouette = _Silhouette()
    # The highest part comes first, and the others find their places right of it.
    for (_, used), part in sorted(zip(parts, arranged, strict=True), key=lambda pair: -pair[1].height):
        left, top = silhouette.place_for(part)
        whole.width, whole.height = max(whole.width, left + part.width), max(whole.height, top + part.height)
        for key, (x, y) in part.places.items():
            whole.places[key] = (x + left, y + top)
            silhouette.cover(x + left + size[key][0] / 2, y + top - size[key][1] / 2, y + top + size[key][1] / 2)
        for index, route in zip(used, part.routes, strict=True):
            whole.routes[index] = [(x + left, y + top) for x, y in route]
            for (x, y), (next_x, next_y) in pairwise(whole.routes[index]):
                silhouette.cover(max(x, next_x), y, next_y)
    return whole


class _Silhouette:
    """How far right what is placed already reaches, at each height."""

    STEP = 16.0

    def __init__(self) -> None:
        self.right: defaultdict[int, float] = defaultdict(float)
        self.bottoms = [0.0]

    def cover(self, right: float, top: float, bottom: float) -> None:
        """Note something between two heights."""
        for row in range(int(top // self.STEP), int(bottom // self.STEP) + 1):
            self.right[row] = max(self.right[row], right)

    def place_for(self, part: Arrangement) -> Point:
        """The left upper corner of the next part: at the top or below an earlier one, wherever it lies further left."""
        height = int(max((row for row in self.right), default=0) * self.STEP)
        fitting = [top for top in self.bottoms if top == 0 or top + part.height <= height]
        left, top = min((self._free(top, top + part.height), top) for top in fitting)
        self.bottoms.append(top + part.height + PART_GAP)
        return left, top

    def _free(self, top: float, bottom: float) -> float:
        rows = range(int((top - PART_GAP) // self.STEP), int((bottom + PART_GAP) // self.STEP) + 1)
        right = max(self.right.get(row, 0.0) for row in rows)
        return right + PART_GAP if right else 0.0


def _connected(items: Sequence[Item], links: Sequence[Link]) -> list[tuple[list[int], list[int]]]:
    """The indices of the items and of the links of each connected part."""
    parent: dict[Key, Key] = {item.key: item.key for item in items}

    def root(key: Key) -> Key:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for link in links:
        parent[root(link.target)] = root(link.source)
    parts: dict[Key, tuple[list[int], list[int]]] = {}
    for index, item in enumerate(items):
        parts.setdefault(root(item.key), ([], []))[0].append(index)
    for index, link in enumerate(links):
        parts[root(link.source)][1].append(index)
    return list(parts.values())


def _arrange_connected(items: Sequence[Item], links: Sequence[Link], layers: Mapping[Key, int]) -> Arrangement:
    first = min(layers[item.key] for item in items)
    last = max(layers[item.key] for item in items)
    cells = {item.key: _Cell(layers[item.key] - first, item.width, item) for item in items}
    rows: list[list[_Cell]] = [[] for _ in range(last - first + 1)]
    for cell in cells.values():
        rows[cell.layer].append(cell)
    chains = [_chain(link, cells, rows) for link in links]
    _order(rows)
    _place(rows)
    return _measure(rows, links, chains)


def assign_layers(items: Sequence[Item], links: Sequence[Link]) -> dict[Key, int]:
    """Return each item's layer: below all its sources, and no further from its readers than need be."""
    above: dict[Key, list[Key]] = {item.key: [] for item in items}
    below: dict[Key, list[Key]] = {item.key: [] for item in items}
    for link in links:
        above[link.target].append(link.source)
        below[link.source].append(link.target)
    order = _topological(above, below)
    layer: dict[Key, int] = {}
    for key in order:
        layer[key] = max((layer[source] + 1 for source in above[key] if source in layer), default=0)
    # What has more readers than sources (an input, a broadcast) goes down to its readers: fewer long edges.
    for key in reversed(order):
        if below[key] and len(set(below[key])) > len(set(above[key])):
            layer[key] = max(layer[key], min(layer[target] for target in below[key]) - 1)
    for key in order:
        if above[key] and not below[key]:
            layer[key] = max(layer[source] for source in above[key]) + 1
    used = {old: new for new, old in enumerate(sorted(set(layer.values())))}
    return {key: used[old] for key, old in layer.items()}


def _topological(above: dict[Key, list[Key]], below: dict[Key, list[Key]]) -> list[Key]:
    """Sources first; a cycle is entered at its first item."""
    waiting = {key: len(sources) for key, sources in above.items()}
    ready = [key for key, count in reversed(waiting.items()) if not count]
    order: list[Key] = []
    done: set[Key] = set()
    rest = iter(above)
    while len(order) < len(above):
        key = ready.pop() if ready else next(key for key in rest if key not in done)
        if key in done:
            continue
        done.add(key)
        order.append(key)
        for target in reversed(below[key]):
            waiting[target] -= 1
            if not waiting[target] and target not in done:
                ready.append(target)
    return order


def _chain(link: Link, cells: dict[Key, _Cell], rows: list[list[_Cell]]) -> list[_Cell]:
    """Add the cells of a link on its way, and its segments; return its cells from end to end."""
    source, target = cells[link.source], cells[link.target]
    lanes = [_Cell(layer, 0.0) for layer in range(source.layer + 1, target.layer)]
    for lane in lanes:
        rows[lane.layer].append(lane)
    chain = [source, *lanes, target]
    if target.layer <= source.layer:
        return chain
    for position, (upper, lower) in enumerate(pairwise(chain)):
        first, last = position == 0, position == len(chain) - 2
        segment = _Segment(
            upper,
            lower,
            link.source_offset if first else 0.0,
            link.target_offset if last else 0.0,
            1.0 if first and last else 2.0 if first or last else 8.0,
        )
        upper.below.append(segment)
        lower.above.append(segment)
    return chain


def _order(rows: list[list[_Cell]]) -> None:
    """Order each layer by the middles of its neighbours, sweeping down and up; keep the order with fewest crossings."""
    segments = sum(len(cell.below) for row in rows for cell in row)
    sweeps = max(4, min(24, WORK // max(segments, 1)))
    _number(rows)
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for sweep in range(sweeps):
        downward = sweep % 2 == 0
        for row in rows if downward else reversed(rows):
            _sort(row, downward)
        crossings = _crossings(rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
        if not fewest:
            break
    rows[:] = best
    _number(rows)


def _number(rows: list[list[_Cell]]) -> None:
    for row in rows:
        for rank, cell in enumerate(row):
            cell.rank = rank


def _sort(row: list[_Cell], downward: bool) -> None:
    """Sort a layer by barycentre; cells without neighbours on that side keep their places."""
    fixed: dict[int, _Cell] = {}
    moving: list[tuple[float, int, _Cell]] = []
    for rank, cell in enumerate(row):
        if downward:
            near = [s.upper.rank + _fraction(s.upper_offset, s.upper) for s in cell.above]
        else:
            near = [s.lower.rank + _fraction(s.lower_offset, s.lower) for s in cell.below]
        if near:
            moving.append((sum(near) / len(near), rank, cell))
        else:
            fixed[rank] = cell
    moving.sort(key=lambda entry: entry[:2])
    sorted_cells = iter(moving)
    row[:] = [fixed[rank] if rank in fixed else next(sorted_cells)[2] for rank in range(len(row))]
    for rank, cell in enumerate(row):
        cell.rank = rank


def _fraction(offset: float, cell: _Cell) -> float:
    """An offset from the middle, as a part of one rank."""
    return 0.8 * offset / cell.width if cell.width else 0.0


def _crossings(rows: list[list[_Cell]]) -> int:
    """Count the pairs of segments that cross."""
    total = 0
    for row in rows:
        ends = [
            (
                cell.rank + _fraction(s.upper_offset, cell),
                s.lower.rank + _fraction(s.lower_offset, s.lower),
            )
            for cell in row
            for s in cell.below
        ]
        seen: list[float] = []
        for _, lower in sorted(ends):
            total += len(seen) - bisect_right(seen, lower)
            insort(seen, lower)
    return total


def _place(rows: list[list[_Cell]]) -> None:
    """Give each cell the x nearest to what its segments want, keeping order and distances."""
    for row in rows:
        x = 0.0
        for left, cell in zip([None, *row], row, strict=False):
            x += 0.0 if left is None else _distance(left, cell)
            cell.x = x
        for cell in row:
            cell.x -= x / 2
    cells = sum(map(len, rows))
    for sweep in range(max(6, min(40, WORK // max(cells, 1)))):
        if sweep % 2 == 0:
            for row in rows:
                _settle(row, above=True, below=False)
        else:
            for row in reversed(rows):
                _settle(row, above=False, below=True)
    # What is read from above comes to lie below it, so that long chains are straight; sources follow their readers.
    for row in rows:
        _settle(row, above=True, below=False)
    for row in reversed(rows):
        _settle(row, above=False, below=True, firm=True)


def _distance(left: _Cell, right: _Cell) -> float:
    """How far the middles of neighbours must be apart."""
    gap = GAP if left.item and right.item else LANE
    return (left.width + right.width) / 2 + gap


def _settle(row: list[_Cell], above: bool, below: bool, firm: bool = False) -> None:
    """Minimize the weighted squared distances from the wanted places: a monotone regression by pooling neighbours.

    With `firm`, cells that have something above them stay where they are.
    """
    blocks: list[tuple[float, float, int]] = []  # sum of weight * (wanted - shift), weight, number of cells
    shifts: list[float] = []
    for position, cell in enumerate(row):
        shifts.append(0.0 if position == 0 else shifts[-1] + _distance(row[position - 1], cell))
        weight = 1e6 if firm and cell.above else 1e-3
        pull = cell.x * weight
        if above:
            for s in cell.above:
                pull += s.weight * (s.upper.x + s.upper_offset - s.lower_offset)
                weight += s.weight
        if below:
            for s in cell.below:
                pull += s.weight * (s.lower.x + s.lower_offset - s.upper_offset)
                weight += s.weight
        block = (pull - weight * shifts[-1], weight, 1)
        while blocks and blocks[-1][0] * block[1] > block[0] * blocks[-1][1]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    position = 0
    for pull, weight, count in blocks:
        for _ in range(count):
            row[position].x = pull / weight + shifts[position]
            position += 1


def _measure(rows: list[list[_Cell]], links: Sequence[Link], chains: list[list[_Cell]]) -> Arrangement:
    """Give layers their y, and links their points."""
    left = min(cell.x - cell.width / 2 for row in rows for cell in row)
    right = max(cell.x + cell.width / 2 for row in rows for cell in row)
    tops: list[float] = []
    bottoms: list[float] = []
    y = 0.0
    for row in rows:
        tops.append(y)
        y += max((cell.item.height for cell in row if cell.item), default=0.0)
        bottoms.append(y)
        # Edges that run far sideways need height, or they lie flat on top of each other.
        sideways = max(
            (abs(s.upper.x + s.upper_offset - s.lower.x - s.lower_offset) for c in row for s in c.below), default=0.0
        )
        y += LAYER_GAP + min(60.0, 0.06 * max(0.0, sideways - 100.0))
    places: dict[Key, Point] = {}
    spans: dict[int, Point] = defaultdict(lambda: (0.0, 0.0))
    for row in rows:
        for cell in row:
            top, bottom = tops[cell.layer], bottoms[cell.layer]
            if cell.item:
                # Sources stand near their readers, everything else near what it reads.
                top = top if cell.above else bottom - cell.item.height
                bottom = top + cell.item.height
                places[cell.item.key] = (cell.x - left, (top + bottom) / 2)
            spans[id(cell)] = (top, bottom)
    routes = []
    for link, chain in zip(links, chains, strict=True):
        first, last = chain[0], chain[-1]
        points = [(first.x - left + link.source_offset, spans[id(first)][1])]
        points.append((points[0][0], bottoms[first.layer]))
        for lane in chain[1:-1]:
            points += [(lane.x - left, tops[lane.layer]), (lane.x - left, bottoms[lane.layer])]
        points.append((last.x - left + link.target_offset, tops[last.layer]))
        points.append((points[-1][0], spans[id(last)][0]))
        routes.append(points)
    return Arrangement(right - left, bottoms[-1], places, routes)
