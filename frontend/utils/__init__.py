"""The public names of `keras.utils` that Gradloom has."""

from gradloom.naming import clear_session
from gradloom.random_seed import set_random_seed

__all__ = ["clear_session", "set_random_seed"]
