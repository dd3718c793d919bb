"""Automatic names."""

import sys
import threading

from gradloom.naming import unique_name


def test_threads_beside_each_other_get_names_of_their_own() -> None:
    names: list[str] = []
    start = threading.Barrier(4)

    def take() -> None:
        start.wait()
        names.extend([unique_name(f"layer{number}x") for number in range(20_000)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(set(names)) == len(names) == 80_000
