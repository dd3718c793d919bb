"""Silhouettes of ten garments, each drawn many times with random cut, fabric and position.

Coordinates: x to the right and y down, both −1…1 across the picture; a garment's own cut (lengths, widths, angles) is
drawn from the random generator once per picture, as arrays f64[n].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gradloom.datasets.raster import Array, coverage, round_corners

SIZE = 28
"""Height and width of a picture, in pixels."""

Coordinate = Array | float
Point = tuple[Coordinate, Coordinate]


class Canvas:
    """`n` pictures of one garment drawn at once: each has its own position, size, brightness and fabric."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n = n
        self.rng = rng
        self.pictures = np.zeros((n, SIZE, SIZE))
        self.shade = self.uniform(0.4, 0.95)
        self._center = np.stack([self.uniform(-0.05, 0.05), self.uniform(-0.05, 0.05)], axis=1)
        self._scale = np.stack([self.uniform(0.86, 1.04), self.uniform(0.9, 1.03)], axis=1)
        self._angle = self.normal(0.025)
        self._fabric = self._weave()

    def uniform(self, low: float, high: float) -> Array:
        """One random number a picture, between `low` and `high`."""
        return self.rng.uniform(low, high, self.n)

    def normal(self, deviation: float) -> Array:
        """One random number a picture, normally distributed around 0."""
        return self.rng.normal(0.0, deviation, self.n)

    def chance(self, probability: float) -> Array:
        """1.0 in about this share of the pictures, else 0.0: multiplies what only some garments have."""
        return (self.rng.random(self.n) < probability).astype(np.float64)

    def fill(
        self, outline: Sequence[Point], tone: Coordinate = 1.0, rounded: int = 0, opacity: Coordinate = 1.0
    ) -> None:
        """Paint a polygon in the garment's brightness times `tone`, textured; tone 0 cuts a hole."""
        covered = self._covered(outline, rounded) * self._per_picture(opacity)
        paint = self._per_picture(self.shade * tone) * self._fabric
        self.pictures += covered * (paint - self.pictures)

    def mirrored(
        self, half: Sequence[Point], tone: Coordinate = 1.0, rounded: int = 0, opacity: Coordinate = 1.0
    ) -> None:
        """Paint the polygon whose right half this is, from its top to its bottom."""
        left = [(-np.asarray(x), y) for x, y in reversed(half)]
        self.fill([*half, *left], tone, rounded, opacity)

    def finish(self) -> np.ndarray:
        """Return the pictures as u8[n, 28, 28], with light from one side and the grain of a photograph."""
        light = self._per_picture(self.normal(0.08)) * np.linspace(-1, 1, SIZE)
        grain = self.rng.normal(0.0, 0.025, self.pictures.shape)
        return np.clip(self.pictures * (1 + light + grain) * 255, 0, 255).astype(np.uint8)

    def _per_picture(self, number: Coordinate) -> Array:
        return np.broadcast_to(np.asarray(number, np.float64), (self.n,))[:, None, None]

    def _covered(self, outline: Sequence[Point], rounded: int) -> Array:
        corners = np.empty((self.n, len(outline), 2))
        for number, (x, y) in enumerate(outline):
            corners[:, number, 0] = x
            corners[:, number, 1] = y
        corners = round_corners(corners, rounded)
        sine, cosine = np.sin(self._angle)[:, None], np.cos(self._angle)[:, None]
        x, y = corners[..., 0], corners[..., 1]
        turned = np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=2)
        placed = turned * self._scale[:, None] + self._center[:, None]
        return coverage((placed + 1) * (SIZE / 2), SIZE)

    def _weave(self) -> Array:
        """A pattern f64[n, 28, 28] around 1: mostly plain, sometimes stripes, checks or a print."""
        y, x = np.mgrid[0:SIZE, 0:SIZE]
        angle = self.rng.choice([0.0, np.pi / 2, np.pi / 4], self.n, p=[0.25, 0.6, 0.15])
        frequency = self.uniform(0.7, 2.2)
        phase = self.uniform(0, 2 * np.pi)
        along = self._per_picture(np.cos(angle)) * x + self._per_picture(np.sin(angle)) * y
        across = self._per_picture(np.sin(angle)) * x - self._per_picture(np.cos(angle)) * y
        stripes = np.sin(self._per_picture(frequency) * along + self._per_picture(phase))
        checks = stripes * np.sin(self._per_picture(frequency) * across)
        blotches = _smooth(self.rng.normal(0.0, 1.0, (self.n, SIZE, SIZE)))
        kind = self.rng.choice(3, self.n, p=[0.35, 0.15, 0.5])[:, None, None]
        pattern: Array = np.choose(kind, [stripes, checks, 0.6 * blotches])
        strength = np.where(self.rng.random(self.n) < 0.35, self.uniform(0.12, 0.35), 0.03)
        return 1 + self._per_picture(strength) * pattern


def _smooth(noise: Array) -> Array:
    """Average over 3×3 pixels around, scaled back to about unit deviation."""
    for axis in (1, 2):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
    return noise / 3


def _sleeve(
    c: Canvas, shoulder: Array, top: Coordinate, length: Array, angle: Array, width: Array, tone: Array
) -> None:
    """Both sleeves: strips from the shoulder points outwards and down, `angle` from the vertical, tapering."""
    out_x, out_y = np.sin(angle), np.cos(angle)
    tip_x, tip_y = shoulder + length * out_x, top + length * out_y
    cuff = width * (1 - 0.16 * length)
    # The inner edge lies `width` to the left of the outer one, seen along the sleeve.
    outline: list[Point] = [
        (shoulder - 0.1, top - 0.03),
        (shoulder + 0.04, top + 0.05),
        (tip_x, tip_y),
        (tip_x - cuff * out_y, tip_y + cuff * out_x),
        (shoulder - width * out_y, top + width * out_x + 0.12),
    ]
    for side in (1, -1):
        c.fill([(side * np.asarray(x), y) for x, y in outline], tone)


def _collar_opening(c: Canvas, width: Array, depth: Array, top: Coordinate, rounded: int) -> None:
    """The hole for the neck, with the inside of the back showing dimly in it."""
    opening: list[Point] = [(0, top - 0.3), (width, top - 0.2), (width * 0.9, top + depth * 0.5), (0, top + depth)]
    c.mirrored(opening, 0.0, rounded)
    c.mirrored(
        [(0, top + 0.02), (width * 0.8, top + 0.01), (width * 0.5, top + 0.1), (0, top + 0.12)], 0.55, opacity=0.8
    )


def draw_tshirt(c: Canvas) -> None:
    """Short sleeves, straight hem, round or V neck."""
    chest, hem = c.uniform(0.46, 0.6), c.uniform(0.44, 0.6)
    bottom, shoulder = c.uniform(0.78, 0.95), c.uniform(0.5, 0.6)
    length = c.uniform(0.28, 0.62)
    _sleeve(c, shoulder, -0.74, length, c.uniform(0.55, 1.05), c.uniform(0.3, 0.4), c.uniform(0.88, 1.0))
    c.mirrored([(0, -0.86), (0.25, -0.87), (shoulder, -0.76), (chest, -0.25), (hem, bottom), (0, bottom)])
    _collar_opening(c, c.uniform(0.18, 0.28), c.uniform(0.12, 0.34), -0.86, rounded=1)


def draw_trouser(c: Canvas) -> None:
    """Waistband and two legs."""
    waist, ankle = c.uniform(0.24, 0.34), c.uniform(0.12, 0.26)
    hip, gap = waist + c.uniform(0.02, 0.12), c.uniform(0.02, 0.1)
    crotch, bottom, stance = c.uniform(-0.45, -0.25), c.uniform(0.84, 0.97), c.uniform(0.16, 0.3)
    leg: list[Point] = [
        (0, -0.93),
        (waist, -0.93),
        (hip, -0.55),
        (stance + ankle * 0.8, 0.3),
        (stance + ankle * 0.75, bottom),
        (stance - ankle * 0.75, bottom),
        (gap * 0.6, crotch + 0.06),
        (0, crotch),
    ]
    c.mirrored(leg)
    c.mirrored([(0, -0.96), (waist + 0.01, -0.96), (waist + 0.02, -0.84), (0, -0.84)], c.uniform(0.7, 1.05))
    c.fill([(-0.02, -0.84), (0.02, -0.84), (0.02, crotch), (-0.02, crotch)], 0.7)


def draw_pullover(c: Canvas) -> None:
    """Long sleeves close to the body, ribbed hem, high neck."""
    chest, hem = c.uniform(0.46, 0.58), c.uniform(0.42, 0.54)
    bottom, shoulder = c.uniform(0.76, 0.92), c.uniform(0.5, 0.6)
    tone = c.uniform(0.8, 0.96)
    _sleeve(c, shoulder, -0.7, c.uniform(1.3, 1.55), c.uniform(0.14, 0.3), c.uniform(0.26, 0.34), tone)
    c.mirrored([(0, -0.86), (0.24, -0.86), (shoulder, -0.74), (chest, -0.1), (hem, bottom), (0, bottom)])
    rib = bottom - c.uniform(0.1, 0.16)
    c.mirrored([(0, rib), (hem + 0.01, rib), (hem - 0.02, bottom), (0, bottom)], c.uniform(0.75, 0.9))
    neck = c.uniform(0.17, 0.25)
    _collar_opening(c, neck, c.uniform(0.05, 0.16), -0.86, rounded=1)
    high = c.chance(0.4)
    c.mirrored([(0, -0.97), (neck, -0.97), (neck + 0.03, -0.82), (0, -0.78)], c.uniform(0.8, 0.95), opacity=high)


def draw_dress(c: Canvas) -> None:
    """No or short sleeves, narrow waist, skirt that widens to the hem."""
    bust, waist, hem = c.uniform(0.26, 0.36), c.uniform(0.18, 0.27), c.uniform(0.28, 0.56)
    shoulder, waist_y, bottom = c.uniform(0.24, 0.34), c.uniform(-0.25, 0.0), c.uniform(0.82, 0.97)
    length = c.uniform(0.25, 0.9)
    sleeved = c.chance(0.4)
    _sleeve(c, shoulder, -0.82, length * sleeved, c.uniform(0.25, 0.5), 0.04 + 0.16 * sleeved, c.uniform(0.85, 1.0))
    c.mirrored(
        [
            (0, -0.92),
            (shoulder, -0.94),
            (bust, -0.5),
            (waist, waist_y),
            (0.6 * hem + 0.08, 0.3),
            (hem, bottom),
            (0, bottom),
        ]
    )
    c.mirrored([(0, waist_y - 0.04), (waist, waist_y - 0.04), (waist, waist_y + 0.06), (0, waist_y + 0.06)], 0.75)
    _collar_opening(c, c.uniform(0.12, 0.2), c.uniform(0.1, 0.32), -0.93, rounded=1)


def draw_coat(c: Canvas) -> None:
    """Long, long-sleeved, open at the front, with lapels and sometimes a belt."""
    chest, hem = c.uniform(0.44, 0.54), c.uniform(0.48, 0.6)
    shoulder, bottom = c.uniform(0.48, 0.58), c.uniform(0.88, 0.99)
    tone = c.uniform(0.72, 0.92)
    _sleeve(c, shoulder, -0.74, c.uniform(1.3, 1.5), c.uniform(0.12, 0.26), c.uniform(0.28, 0.36), tone)
    c.mirrored([(0, -0.9), (0.24, -0.92), (shoulder, -0.78), (chest, -0.1), (hem, bottom), (0, bottom)])
    opening, depth = c.uniform(0.02, 0.05), c.uniform(-0.45, -0.1)
    c.mirrored([(0, -0.9), (opening, -0.9), (opening, bottom), (0, bottom)], c.uniform(0.25, 0.5))
    c.mirrored([(0, -0.95), (0.16, -0.95), (0.05, depth), (0, depth + 0.04)], c.uniform(0.2, 0.45))
    lapel = c.uniform(1.06, 1.25)
    for side in (1, -1):
        c.fill([(side * 0.16, -0.97), (side * 0.3, -0.62), (side * 0.06, depth), (side * 0.07, -0.7)], lapel)
    belt = c.chance(0.35)
    c.mirrored([(0, 0.02), (chest, 0.02), (chest, 0.14), (0, 0.14)], 0.6, opacity=belt)


def draw_sandal(c: Canvas) -> None:
    """A sole, sometimes on a heel, and straps with air between them."""
    heel = c.uniform(0.0, 0.62) * c.chance(0.6)
    toe_y, thick = 0.52 + 0.15 * heel, c.uniform(0.09, 0.16)
    back_y, arch = toe_y - heel - 0.04, c.uniform(0.0, 0.08)
    sole: list[Point] = [
        (-0.92, toe_y - thick),
        (-0.4, toe_y - thick),
        (0.3, back_y - thick - arch + 0.12 * heel),
        (0.88, back_y - thick - 0.04),
        (0.92, back_y + 0.03),
        (0.3, back_y + 0.04 - arch + 0.35 * heel),
        (-0.4, toe_y + 0.04),
        (-0.92, toe_y + 0.03),
    ]
    c.fill(sole, c.uniform(0.75, 1.0))
    c.fill([(0.66, back_y), (0.92, back_y - 0.02), (0.86, toe_y + 0.04), (0.74, toe_y + 0.04)], 0.85)
    width, lift = c.uniform(0.09, 0.17), c.uniform(0.28, 0.45)
    for x in (-0.62, -0.2):
        foot = toe_y - thick + 0.03
        c.fill([(x - width, foot), (x + 0.16, foot - lift), (x + 0.16 + width, foot - lift), (x + width, foot)], 1.0)
    top = back_y - thick - c.uniform(0.35, 0.6)
    c.fill([(0.76, back_y - 0.1), (0.7, top), (0.83, top - 0.02), (0.92, back_y - 0.08)], 0.95)
    c.fill([(0.08, back_y - 0.3 * thick - 0.04), (0.6, top), (0.78, top + 0.02), (0.26, back_y - 0.02)], 1.05)


def draw_shirt(c: Canvas) -> None:
    """Collar, button placket, sleeves of any length, slightly waisted."""
    chest, waist = c.uniform(0.44, 0.56), c.uniform(0.4, 0.52)
    hem, bottom, shoulder = c.uniform(0.42, 0.56), c.uniform(0.8, 0.95), c.uniform(0.46, 0.56)
    long = c.chance(0.65)
    length = c.uniform(0.4, 0.7) * (1 - long) + c.uniform(1.2, 1.5) * long
    angle = c.uniform(0.4, 0.8) * (1 - long) + c.uniform(0.14, 0.32) * long
    _sleeve(c, shoulder, -0.74, length, angle, c.uniform(0.24, 0.32), c.uniform(0.85, 0.98))
    body: list[Point] = [(0, -0.9), (0.22, -0.9), (shoulder, -0.77), (chest, -0.3), (waist, 0.2), (hem, bottom - 0.1)]
    c.mirrored([*body, (hem * 0.6, bottom), (0, bottom)])
    c.mirrored([(0, -0.8), (0.05, -0.8), (0.05, bottom), (0, bottom)], c.uniform(1.02, 1.2))
    for y in np.linspace(-0.55, 0.7, 5):
        c.mirrored([(0, y), (0.035, y), (0.035, y + 0.07), (0, y + 0.07)], 0.35)
    c.mirrored([(0, -0.98), (0.12, -0.98), (0.04, -0.74), (0, -0.7)], 0.15)
    for side in (1, -1):
        c.fill(
            [(side * 0.12, -1.0), (side * 0.26, -0.86), (side * 0.2, -0.66), (side * 0.03, -0.76)], c.uniform(1.05, 1.3)
        )


def draw_sneaker(c: Canvas) -> None:
    """A low shoe: flat sole, rounded toe, laces."""
    ground, thick = c.uniform(0.4, 0.52), c.uniform(0.1, 0.19)
    ankle, tongue = c.uniform(-0.32, -0.1), c.uniform(-0.32, -0.16)
    toe = c.uniform(0.06, 0.2)
    upper: list[Point] = [
        (-0.95, ground - thick),
        (-0.93, toe),
        (-0.6, toe - 0.14),
        (-0.05, tongue + 0.02),
        (0.16, tongue - 0.1),
        (0.32, tongue + 0.08),
        (0.62, ankle + 0.12),
        (0.88, ankle - 0.06),
        (0.93, 0.1),
        (0.95, ground - thick),
    ]
    c.fill(upper, rounded=1)
    sole: list[Point] = [(-0.98, ground - thick), (0.96, ground - thick - 0.03), (0.95, ground), (-0.9, ground)]
    c.fill(sole, c.uniform(0.5, 1.5))
    stripe = c.uniform(0.4, 1.6)
    for x in (0.12, 0.34):
        c.fill([(x, ground - thick), (x - 0.2, toe - 0.22), (x - 0.1, toe - 0.24), (x + 0.1, ground - thick)], stripe)
    for x in (-0.42, -0.24, -0.06):
        y = toe - 0.2 - 0.35 * (x + 0.42) * 0.9
        c.fill([(x - 0.05, y - 0.04), (x + 0.07, y + 0.12), (x + 0.13, y + 0.1), (x + 0.01, y - 0.06)], 1.35)


def draw_bag(c: Canvas) -> None:
    """A box, wide or tall, with a handle above it and often a flap."""
    half, top = c.uniform(0.55, 0.9), c.uniform(-0.4, -0.02)
    bottom, flare = c.uniform(0.62, 0.88), c.uniform(-0.12, 0.08)
    grip, rise, strap = c.uniform(0.25, 0.5), c.uniform(0.35, 0.6), c.uniform(0.07, 0.12)
    peak = np.maximum(top - rise, -0.97)
    outer: list[Point] = [(0, peak), (grip * 0.9, peak), (grip + 0.06, top), (grip + 0.06, top + 0.1), (0, top + 0.1)]
    inner: list[Point] = [(0, peak + strap), (grip * 0.8 - strap * 0.4, peak + strap), (grip - strap, top), (0, top)]
    c.mirrored(outer, 0.85, rounded=1)
    c.mirrored(inner, 0.0, rounded=1)
    wide = half + flare
    c.mirrored(
        [(0, top), (half, top), (half + 0.03, top + 0.06), (wide, bottom - 0.06), (wide - 0.05, bottom), (0, bottom)]
    )
    flap, has_flap = top + (bottom - top) * c.uniform(0.3, 0.55), c.chance(0.6)
    tone = c.uniform(0.7, 1.2)
    c.mirrored(
        [(0, top), (half, top), (half * 0.96, flap - 0.08), (half * 0.75, flap), (0, flap)], tone, opacity=has_flap
    )
    c.mirrored([(0, flap - 0.1), (0.08, flap - 0.1), (0.08, flap + 0.06), (0, flap + 0.06)], 0.4)


def draw_ankle_boot(c: Canvas) -> None:
    """A shaft up to the ankle, a heel, a toe to the left."""
    ground, heel = c.uniform(0.78, 0.9), c.uniform(0.06, 0.3)
    shaft_top, front, back = c.uniform(-0.92, -0.62), c.uniform(-0.12, 0.08), c.uniform(0.66, 0.8)
    toe = c.uniform(0.28, 0.42)
    boot: list[Point] = [
        (front - 0.04, shaft_top),
        (back, shaft_top - 0.02),
        (back - 0.02, -0.1),
        (back + 0.1, 0.4),
        (back + 0.1, ground - heel),
        (0.35, ground - heel + 0.04),
        (-0.3, ground - 0.06),
        (-0.94, ground - 0.06),
        (-0.96, toe + 0.14),
        (-0.72, toe),
        (-0.3, 0.14),
        (front - 0.02, -0.12),
    ]
    c.fill(boot, rounded=1)
    c.fill(
        [
            (back - 0.26, ground - heel - 0.02),
            (back + 0.08, ground - heel - 0.02),
            (back + 0.06, ground),
            (back - 0.22, ground),
        ],
        0.7,
    )
    c.fill(
        [
            (-0.94, ground - 0.1),
            (-0.3, ground - 0.1),
            (0.3, ground - heel),
            (0.3, ground - heel + 0.08),
            (-0.3, ground),
            (-0.92, ground),
        ],
        0.6,
    )
    cuff = c.uniform(0.75, 1.25)
    c.fill(
        [
            (front - 0.06, shaft_top),
            (back + 0.02, shaft_top - 0.03),
            (back, shaft_top + 0.14),
            (front - 0.04, shaft_top + 0.16),
        ],
        cuff,
    )
    zipper = c.chance(0.5)
    c.fill([(0.3, shaft_top + 0.1), (0.36, shaft_top + 0.1), (0.4, 0.45), (0.34, 0.45)], 0.45, opacity=zipper)


GARMENTS: tuple[Callable[[Canvas], None], ...] = (
    draw_tshirt,
    draw_trouser,
    draw_pullover,
    draw_dress,
    draw_coat,
    draw_sandal,
    draw_shirt,
    draw_sneaker,
    draw_bag,
    draw_ankle_boot,
)
"""One drawing a class, in the order of the labels."""
