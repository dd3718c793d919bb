"""Layers by Keras's names."""

from gradloom.layers.activation_layers import Activation, LeakyReLU, ReLU, Softmax
from gradloom.layers.convolutional import Conv2D, DepthwiseConv2D, UpSampling2D, ZeroPadding2D
from gradloom.layers.dense import Dense
from gradloom.layers.input_layer import Input, InputLayer
from gradloom.layers.lambda_layer import Lambda
from gradloom.layers.layer import Layer
from gradloom.layers.merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    maximum,
    minimum,
    multiply,
    subtract,
)
from gradloom.layers.normalization import BatchNormalization
from gradloom.layers.pooling import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from gradloom.layers.regularization import Dropout
from gradloom.layers.rescaling import Rescaling
from gradloom.layers.reshaping import Flatten, Reshape
from gradloom.layers.shapes import InputSpec

__all__ = [
    "Activation",
    "Add",
    "Average",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Input",
    "InputLayer",
    "InputSpec",
    "Lambda",
    "Layer",
    "LeakyReLU",
    "MaxPooling2D",
    "Maximum",
    "Minimum",
    "Multiply",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
    "Subtract",
    "UpSampling2D",
    "ZeroPadding2D",
    "add",
    "average",
    "concatenate",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]
