"""Drawings of graphs: networkx, DOT, and SVG drawn without the Graphviz binary."""

from gradloom.compiler.views.dot import draw_dot, to_dot
from gradloom.compiler.views.networkx_view import to_networkx
from gradloom.compiler.views.picture import picture_of_network
from gradloom.compiler.views.svg import draw_svg, to_svg

__all__ = ["draw_dot", "draw_svg", "picture_of_network", "to_dot", "to_networkx", "to_svg"]
