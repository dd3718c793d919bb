"""The public names of `keras.utils` that Gradloom has."""

from gradloom.naming import clear_session
from gradloom.plotting import plot_model
from gradloom.random_seed import set_random_seed

__all__ = ["clear_session", "plot_model", "set_random_seed"]
