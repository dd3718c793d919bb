"""Looking inside: every stage between a model's layers and its machine code."""

from gradloom.inspection.inspection import MODES, Inspection, inspect, inspect_graph, inspect_model
from gradloom.inspection.stages import GRAPH_STAGES, STAGES, GraphStage, Stage

__all__ = [
    "GRAPH_STAGES",
    "MODES",
    "STAGES",
    "GraphStage",
    "Inspection",
    "Stage",
    "inspect",
    "inspect_graph",
    "inspect_model",
]
