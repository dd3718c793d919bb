"""The colours of drawings: soft fills with firm outlines, for light and dark backgrounds."""

from __future__ import annotations

from colorsys import hls_to_rgb

from gradloom.compiler.views.picture import Picture, Place

HUES = (212, 152, 28, 268, 340, 188, 48, 305, 95, 8, 235, 168)
"""Of layers, in the order of their first nodes; neighbours lie far apart."""

ROLE_HUES = {
    "parameter": 40,
    "state": 275,
    "hyperparameter": 345,
    "data": 200,
    "indices": 200,
    "argument": 200,
    "input": 200,
    "captured": 90,
    "prepared": 60,
    "intermediate": 188,
    "output": 130,
}

KIND_HUES = {"contraction": 255, "rows": 175, "map": 215, "reduce": 25, "scatter": 330}
"""Of kernels, by what they are."""


NEUTRAL = 215
"""Of a kernel of another kind."""


def role_hue(role: str) -> int:
    """The hue of an input's role, or of a kernel's kind."""
    return ROLE_HUES.get(role, KIND_HUES.get(role, 200))


def box_hues(picture: Picture) -> dict[Place, int | None]:
    """The hue of each box: its role's, else its first layer's, else none."""
    layers = {layer: HUES[number % len(HUES)] for number, layer in enumerate(picture.layers)}
    return {
        box.place: role_hue(box.role) if box.role else layers[box.layers[0]] if box.layers else None
        for box in picture.boxes
    }


def fill(hue: int, dark: bool = False) -> str:
    """The inside of a box."""
    return _colour(hue, 0.20, 0.35) if dark else _colour(hue, 0.945, 0.75)


def stroke(hue: int, dark: bool = False) -> str:
    """The outline of a box."""
    return _colour(hue, 0.62, 0.60) if dark else _colour(hue, 0.50, 0.50)


def wash(hue: int, dark: bool = False) -> str:
    """The background of a kernel: paler than any box."""
    return _colour(hue, 0.115, 0.25) if dark else _colour(hue, 0.982, 0.55)


def rim(hue: int, dark: bool = False) -> str:
    """The outline of a kernel."""
    return _colour(hue, 0.36, 0.35) if dark else _colour(hue, 0.82, 0.42)


def ink(hue: int, dark: bool = False) -> str:
    """Text on a fill."""
    return _colour(hue, 0.80, 0.60) if dark else _colour(hue, 0.30, 0.55)


def _colour(hue: int, lightness: float, saturation: float) -> str:
    red, green, blue = (round(255 * part) for part in hls_to_rgb(hue / 360, lightness, saturation))
    return f"#{red:02x}{green:02x}{blue:02x}"
