"""Passes over the graph IR: simplification, choice of layouts, fusion."""
