"""How matrix products are divided into blocks: panels of columns or strips of rows, and how wide the panels are."""

from __future__ import annotations

from gradloom.compiler.choices import Division
from gradloom.compiler.kernels.lowering import Machine, Task
from gradloom.compiler.kernels.product import Product

PACK_ROWS = 4
"""Tiles of rows from which on packing a panel of B pays, where B is strided in memory."""

TILE_ROWS = 6
"""Rows of a tile for which panels are as wide as registers allow: taller tiles take narrower panels."""

SPARE = 2
"""Registers that stay free for the elements of A on their way."""

WIDEST = 8
"""Vectors in a panel at most: enough sums to hide an addition's latency."""


def division_of(task: Task, product: Product) -> Division:
    """The division that was chosen for a product, else that of the cost model."""
    return _chosen(task, product) or _division(product, task.lanes, task.machine)


def widest_panel(rows: int, registers: int) -> int:
    """Vectors in a panel at most: with their elements of B, the sums of a tile of `rows` rows fill the registers.

    Few rows take wide panels: what waits for its last addition is the sum of a column, so that there must be many.
    """
    vectors = (registers - SPARE) // (min(rows, TILE_ROWS) + 1)
    return min(WIDEST, 1 << (max(1, vectors).bit_length() - 1))


def divisions(product: Product, lanes: int, machine: Machine) -> list[Division]:
    """The other ways to divide a product that give each core a block."""
    tiles, most = -(-product.rows // PACK_ROWS), _most_vectors(product, lanes, machine)
    found = []
    for vectors in (1 << power for power in range(most.bit_length())):
        if -(-product.columns // (vectors * lanes)) >= machine.cores or product.batch:
            found.append(Division(True, vectors))
        if tiles >= machine.cores and not product.batch:
            found.append(Division(False, vectors))
    return [division for division in found if division != _division(product, lanes, machine)]


def _chosen(task: Task, product: Product) -> Division | None:
    """The division that was chosen for the contraction, as far as the product follows it: it may be one of several."""
    choice = task.choices.of(product.node)
    if choice is None or choice.division is None:
        return None
    vectors = min(choice.division.vectors, _most_vectors(product, task.lanes, task.machine))
    return Division(choice.division.by_columns or bool(product.batch), vectors)


def _most_vectors(product: Product, lanes: int, machine: Machine) -> int:
    """Vectors in a panel at most."""
    return max(1, min(widest_panel(product.rows, machine.registers), -(-product.columns // lanes)))


def _division(product: Product, lanes: int, machine: Machine) -> Division:
    """How a product is divided unless something else was chosen.

    Panels of columns come first: each core then keeps its own columns of B in its cache, and of a result that later
    kernels divide alike. With few columns and many rows, rows are divided and panels stay wide.
    """
    vectors, cores = -(-product.columns // lanes), machine.cores
    wide = _most_vectors(product, lanes, machine)
    if product.batch or vectors // wide >= cores:
        return Division(True, wide)
    if product.rows >= 8 * PACK_ROWS * cores or vectors < cores <= product.rows:
        return Division(False, wide)
    return Division(True, max(1, min(wide, vectors // cores)))
