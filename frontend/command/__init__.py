"""The command line, `python -m gradloom`: one module for each command, and what they share."""

from gradloom.command.dispatch import main

__all__ = ["main"]
