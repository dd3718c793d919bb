"""The command line, `python -m gradloom`: one module for each command, and what they share."""

from gradloom.command.main import main

__all__ = ["main"]
