"""What the names of files end in."""

MODEL = ".gradloom"
"""Of whole models, which are files of weights, too."""
WEIGHTS = ".safetensors"
KERAS_WEIGHTS = ".weights.h5"
