"""Files that are damaged in seeded ways, and what reads them in a process of its own; used by tests/torture."""
