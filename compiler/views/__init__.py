"""Drawings of graphs: networkx, DOT, and SVG drawn without the Graphviz binary."""

from gradloom.compiler.views.dot import to_dot
from gradloom.compiler.views.networkx_view import to_networkx
from gradloom.compiler.views.svg import to_svg

__all__ = ["to_dot", "to_networkx", "to_svg"]
