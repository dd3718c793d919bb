"""Delta debugging of graphs: `reduce` makes a graph that fails a check a small one that still fails it."""

from gradloom.compiler.reducer.search import reduce

__all__ = ["reduce"]
