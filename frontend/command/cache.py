"""`cache`: shows or empties the cache of compiled code."""

from __future__ import annotations

import argparse

from gradloom.command.grammar import Command, one_of


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", type=one_of(("info", "clear")), help="info: folder and size; clear: remove all")


def _run(options: argparse.Namespace) -> None:
    from gradloom.runtime import cache

    if options.action == "info":
        print(cache.info())
        return
    removed = cache.clear()
    print(f"removed {removed} {'entry' if removed == 1 else 'entries'}")


COMMAND = Command(
    name="cache",
    summary="show or empty the cache of compiled code",
    usage="info | clear",
    description="Show folder and size of the cache of compiled code, or remove all entries.",
    examples="  python -m gradloom cache info\n",
    add_options=_add_options,
    run=_run,
)
