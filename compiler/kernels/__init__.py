"""Kernel builders: from the groups of a fused graph to loop IR."""
