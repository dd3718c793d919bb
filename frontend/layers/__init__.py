"""Layers by Keras's names."""

from gradloom.layers.activation_layers import Activation, LeakyReLU, ReLU, Softmax
from gradloom.layers.dense import Dense
from gradloom.layers.input_layer import Input, InputLayer
from gradloom.layers.layer import Layer
from gradloom.layers.rescaling import Rescaling
from gradloom.layers.reshaping import Flatten, Reshape
from gradloom.layers.shapes import InputSpec

__all__ = [
    "Activation",
    "Dense",
    "Flatten",
    "Input",
    "InputLayer",
    "InputSpec",
    "Layer",
    "LeakyReLU",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
]
