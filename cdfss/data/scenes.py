"""Drawn pictures that look, from afar, like those of the real data sets, with their masks.

Everyday things and objects, land cover from above, skin lesions and lungs: everything follows from
the generator that is handed in. Pictures are float arrays (H, W, 3), or (H, W) in grey, in 0..1 until
they are written.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def _noise(rng, height: int, width: int, cells: int, octaves: int = 3) -> np.ndarray:
    """Smooth noise (H, W) in 0..1 with about `cells` bumps across, finer octaves at half strength."""
    total, weight = np.zeros((height, width)), 1.0
    for octave in range(octaves):
        grid = rng.rand(cells * 2**octave + 2, cells * 2**octave + 2).astype(np.float32)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(layer)
        weight /= 2
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


def _blend(first, second, amount: np.ndarray) -> np.ndarray:
    """Two colours or pictures mixed by `amount` (H, W) in 0..1."""
    amount = amount[..., None]
    return np.asarray(first) * (1 - amount) + np.asarray(second) * amount


def _colour(rng, hue: float, saturation=(0.35, 0.85), value=(0.35, 0.95)) -> np.ndarray:
    """An RGB colour in 0..1 of about that hue (turns)."""
    h = (hue + rng.uniform(-0.03, 0.03)) % 1
    s, v = rng.uniform(*saturation), rng.uniform(*value)
    k = (np.array([5.0, 3.0, 1.0]) + h * 6) % 6
    return v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)


def _pattern(rng, kind: int, size: int) -> np.ndarray:
    """A pattern (size, size) in 0..1: plain, stripes, dots, checks, waves or blotches."""
    y, x = np.mgrid[:size, :size] / size
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(10, 16)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 0:
        return 0.25 * _noise(rng, size, size, 4)
    if kind == 1:
        return (np.sin(2 * np.pi * frequency * u) > 0).astype(float)
    if kind == 2:
        return ((np.sin(2 * np.pi * frequency * u) * np.sin(2 * np.pi * frequency * v)) > 0.4).astype(float)
    if kind == 3:
        return ((np.floor(frequency * u) + np.floor(frequency * v)) % 2).astype(float)
    if kind == 4:
        return 0.5 + 0.5 * np.sin(2 * np.pi * (frequency * u + 0.8 * np.sin(2 * np.pi * 3 * v)))
    return (_noise(rng, size, size, 9) > 0.5).astype(float)


def _polar(radius, points: int = 90) -> list[tuple[float, float]]:
    """Polygon of a radius function of the angle, within the unit circle."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return [(float(radius(a) * np.cos(a)), float(radius(a) * np.sin(a))) for a in angles]


def _ellipse(cx, cy, rx, ry) -> list[tuple[float, float]]:
    return [(cx + rx * x, cy + ry * y) for x, y in _polar(lambda a: 1.0, 40)]


def _box(x0, y0, x1, y1) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# A thing is a list of parts: (polygon in -1..1, y down; number of its colour). Number 0 is the main
# colour with the class's pattern, 1 the second colour, -1 a hole.
EVERYDAY = {
    "ball": [(_polar(lambda a: 0.9), 0)],
    "box": [(_box(-0.8, -0.6, 0.8, 0.7), 0), (_box(-0.8, -0.75, 0.8, -0.5), 1)],
    "star": [(_polar(lambda a: 0.95 if int(a * 5 / np.pi + 0.5) % 2 == 0 else 0.42, 10), 0)],
    "ring": [(_ellipse(0, 0, 0.9, 0.9), 0), (_ellipse(0, 0, 0.45, 0.45), -1)],
    "cross": [(_box(-0.3, -0.9, 0.3, 0.9), 0), (_box(-0.9, -0.3, 0.9, 0.3), 0)],
    "kite": [([(0, -0.95), (0.6, -0.2), (0, 0.95), (-0.6, -0.2)], 0)],
    "flower": [(_polar(lambda a: 0.65 + 0.28 * np.cos(6 * a)), 0), (_ellipse(0, 0, 0.28, 0.28), 1)],
    "bottle": [(_box(-0.4, -0.2, 0.4, 0.95), 0), (_box(-0.15, -0.9, 0.15, -0.2), 1)],
    "car": [
        (_box(-0.95, -0.1, 0.95, 0.4), 0),
        ([(-0.6, -0.1), (-0.35, -0.55), (0.4, -0.55), (0.65, -0.1)], 0),
        (_ellipse(-0.5, 0.42, 0.24, 0.24), 1),
        (_ellipse(0.5, 0.42, 0.24, 0.24), 1),
    ],
    "lamp": [
        ([(-0.35, -0.9), (0.35, -0.9), (0.75, -0.1), (-0.75, -0.1)], 0),
        (_box(-0.08, -0.1, 0.08, 0.9), 1),
        (_box(-0.4, 0.75, 0.4, 0.92), 1),
    ],
    "chair": [
        (_box(-0.6, -0.9, -0.35, 0.9), 0),
        (_box(-0.6, 0.0, 0.6, 0.25), 0),
        (_box(0.38, 0.2, 0.6, 0.9), 1),
    ],
    "cat": [
        (_ellipse(0, 0.15, 0.75, 0.65), 0),
        ([(-0.7, 0.0), (-0.62, -0.85), (-0.15, -0.4)], 0),
        ([(0.7, 0.0), (0.62, -0.85), (0.15, -0.4)], 0),
        (_ellipse(-0.28, 0.05, 0.1, 0.12), 1),
        (_ellipse(0.28, 0.05, 0.1, 0.12), 1),
    ],
    "bird": [
        (_ellipse(0, 0.1, 0.6, 0.38), 0),
        (_ellipse(0.55, -0.28, 0.25, 0.25), 0),
        ([(0.75, -0.35), (1.0, -0.22), (0.75, -0.15)], 1),
        ([(-0.5, 0.1), (-1.0, -0.25), (-0.9, 0.3)], 1),
    ],
    "screen": [
        (_box(-0.9, -0.7, 0.9, 0.4), 1),
        (_box(-0.75, -0.56, 0.75, 0.26), 0),
        (_box(-0.15, 0.4, 0.15, 0.75), 1),
        (_box(-0.5, 0.7, 0.5, 0.85), 1),
    ],
    "cup": [
        (_box(-0.6, -0.6, 0.35, 0.75), 0),
        (_ellipse(0.45, 0.05, 0.4, 0.42), 1),
        (_ellipse(0.45, 0.05, 0.2, 0.22), -1),
        (_box(-0.6, -0.6, 0.35, 0.75), 0),
    ],
    "drop": [
        ([(0, -0.95), (0.35, -0.2), (0.55, 0.25), (-0.55, 0.25), (-0.35, -0.2)], 0),
        (_ellipse(0, 0.35, 0.58, 0.55), 0),
    ],
    "moon": [(_ellipse(0, 0, 0.9, 0.9), 0), (_ellipse(0.45, -0.1, 0.75, 0.75), -1)],
    "bus": [
        (_box(-0.95, -0.6, 0.95, 0.5), 0),
        (_box(-0.75, -0.4, -0.3, -0.05), 1),
        (_box(-0.15, -0.4, 0.3, -0.05), 1),
        (_box(0.45, -0.4, 0.8, -0.05), 1),
        (_ellipse(-0.5, 0.52, 0.2, 0.2), 1),
        (_ellipse(0.5, 0.52, 0.2, 0.2), 1),
    ],
    "sofa": [
        (_box(-0.7, -0.55, 0.7, 0.1), 0),
        (_box(-0.95, -0.15, -0.6, 0.55), 1),
        (_box(0.6, -0.15, 0.95, 0.55), 1),
        (_box(-0.65, 0.05, 0.65, 0.5), 0),
    ],
    "plant": [
        ([(-0.4, 0.3), (0.4, 0.3), (0.28, 0.95), (-0.28, 0.95)], 1),
        (_ellipse(0, -0.5, 0.22, 0.48), 0),
        (_ellipse(-0.42, -0.15, 0.42, 0.2), 0),
        (_ellipse(0.42, -0.15, 0.42, 0.2), 0),
        (_box(-0.08, -0.3, 0.08, 0.4), 0),
    ],
}
OBJECTS = {
    "fish": [
        (_ellipse(0.1, 0, 0.7, 0.42), 0),
        ([(-0.5, 0), (-0.98, -0.45), (-0.98, 0.45)], 1),
        (_ellipse(0.5, -0.1, 0.09, 0.09), 1),
    ],
    "house": [
        (_box(-0.65, -0.1, 0.65, 0.85), 0),
        ([(-0.85, -0.1), (0, -0.9), (0.85, -0.1)], 1),
        (_box(-0.15, 0.35, 0.15, 0.85), 1),
    ],
    "tree": [(_box(-0.13, 0.2, 0.13, 0.95), 1), (_polar(lambda a: 0.62 + 0.08 * np.cos(8 * a)), 0)],
    "mushroom": [
        ([(-0.25, 0.0), (0.25, 0.0), (0.35, 0.9), (-0.35, 0.9)], 1),
        ([(-0.9, 0.1), (-0.7, -0.5), (0, -0.85), (0.7, -0.5), (0.9, 0.1)], 0),
    ],
    "arrow": [(_box(-0.9, -0.2, 0.2, 0.2), 0), ([(0.15, -0.6), (0.95, 0), (0.15, 0.6)], 0)],
    "key": [
        (_ellipse(-0.55, 0, 0.4, 0.4), 0),
        (_ellipse(-0.55, 0, 0.18, 0.18), -1),
        (_box(-0.2, -0.12, 0.95, 0.12), 0),
        (_box(0.6, 0.1, 0.72, 0.4), 0),
        (_box(0.8, 0.1, 0.92, 0.4), 0),
    ],
    "umbrella": [
        (_polar(lambda a: 0.9 if np.sin(a) <= 0.01 else 0.06), 0),
        (_box(-0.05, 0.0, 0.05, 0.8), 1),
        (_box(-0.05, 0.75, 0.25, 0.87), 1),
    ],
    "boat": [
        ([(-0.95, 0.25), (0.95, 0.25), (0.6, 0.75), (-0.6, 0.75)], 0),
        ([(0.0, -0.95), (0.0, 0.15), (0.7, 0.15)], 1),
        (_box(-0.08, -0.9, 0.0, 0.25), 0),
    ],
    "gear": [
        (_polar(lambda a: 0.9 if int(a * 10 / np.pi) % 2 == 0 else 0.68, 120), 0),
        (_ellipse(0, 0, 0.28, 0.28), -1),
    ],
    "leaf": [
        (
            [
                (-0.9, 0.55),
                (-0.55, -0.25),
                (0.1, -0.65),
                (0.9, -0.75),
                (0.7, 0.05),
                (0.2, 0.5),
                (-0.4, 0.65),
            ],
            0,
        )
    ],
    "heart": [
        (_ellipse(-0.4, -0.3, 0.45, 0.45), 0),
        (_ellipse(0.4, -0.3, 0.45, 0.45), 0),
        ([(-0.82, -0.12), (0.82, -0.12), (0, 0.9)], 0),
    ],
    "snowman": [
        (_ellipse(0, 0.45, 0.5, 0.48), 0),
        (_ellipse(0, -0.2, 0.36, 0.34), 0),
        (_ellipse(0, -0.68, 0.24, 0.24), 0),
        (_box(-0.22, -1.0, 0.22, -0.82), 1),
    ],
    "hammer": [(_box(-0.65, -0.8, 0.65, -0.35), 0), (_box(-0.12, -0.4, 0.12, 0.95), 1)],
    "butterfly": [
        (_ellipse(-0.45, -0.35, 0.45, 0.4), 0),
        (_ellipse(0.45, -0.35, 0.45, 0.4), 0),
        (_ellipse(-0.35, 0.4, 0.34, 0.34), 0),
        (_ellipse(0.35, 0.4, 0.34, 0.34), 0),
        (_box(-0.07, -0.7, 0.07, 0.75), 1),
    ],
    "rocket": [
        ([(-0.3, 0.6), (-0.3, -0.4), (0, -0.95), (0.3, -0.4), (0.3, 0.6)], 0),
        ([(-0.3, 0.2), (-0.65, 0.8), (-0.3, 0.6)], 1),
        ([(0.3, 0.2), (0.65, 0.8), (0.3, 0.6)], 1),
        (_ellipse(0, -0.2, 0.13, 0.13), 1),
    ],
    "pear": [
        (_ellipse(0, 0.35, 0.6, 0.52), 0),
        (_ellipse(0, -0.3, 0.35, 0.45), 0),
        (_box(-0.05, -0.98, 0.05, -0.65), 1),
    ],
}


class Look:
    """What things of one class have in common: hues, pattern; drawn from the class's own seed.

    Args:
        seed: of the class.
        painter: a generator that draws the hues instead, for things that have the pattern alone in common.
    """

    def __init__(self, seed: int, painter: np.random.RandomState | None = None):
        rng = np.random.RandomState(seed)
        self.hues = rng.rand(2)
        self.pattern = rng.randint(6)
        if painter is not None:
            self.hues = painter.rand(2)


def _draw_thing(rng, picture, parts, look: Look, centre, radius) -> np.ndarray:
    """Draw a thing into `picture` in place; returns its mask (size, size) bool."""
    size = picture.shape[0]
    angle, squeeze = rng.uniform(-0.5, 0.5), rng.uniform(0.8, 1.1)
    flip = rng.choice((-1, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.array([flip * radius * squeeze, radius])
    colours = [_colour(rng, hue) for hue in look.hues]
    surface = _blend(colours[0], 0.55 * colours[0], _pattern(rng, look.pattern, size))
    mask = np.zeros((size, size), bool)
    thing = picture.copy()
    for polygon, number in parts:
        points = (np.array(polygon) * scale) @ turn.T + centre
        sheet = Image.new("L", (2 * size, 2 * size))
        ImageDraw.Draw(sheet).polygon([tuple(2 * p) for p in points], fill=255)
        cover = np.asarray(sheet.resize((size, size), Image.Resampling.BOX)) / 255
        if number < 0:
            thing = _blend(thing, picture, cover)
            mask &= cover < 0.5
        else:
            thing = _blend(thing, surface if number == 0 else colours[1], cover)
            mask |= cover >= 0.5
    picture[:] = thing
    return mask


def _scene(rng, size: int) -> np.ndarray:
    """A background: two or three muted colours in smooth patches, some clutter."""
    colours = [_colour(rng, rng.rand(), (0.05, 0.5), (0.3, 0.9)) for _ in range(3)]
    picture = _blend(colours[0], colours[1], _noise(rng, size, size, rng.randint(2, 6)))
    patches = _noise(rng, size, size, 3, 2) > 0.62
    picture = _blend(
        picture, _blend(picture, colours[2], np.full((size, size), 0.6)), patches.astype(float)
    )
    grain = _pattern(rng, rng.randint(6), size)
    return picture * (1 - 0.18 * grain[..., None])


def _light(rng, picture: np.ndarray) -> np.ndarray:
    """Uneven light, slight blur and sensor noise."""
    height, width = picture.shape[:2]
    picture = picture * (0.75 + 0.45 * _noise(rng, height, width, 1, 1))[..., None]
    picture = _blurred(picture, 0.6)
    return np.clip(picture + rng.normal(0, 0.02, picture.shape), 0, 1)


def _blurred(picture: np.ndarray, radius: float) -> np.ndarray:
    """(H, W, 3) or (H, W) in 0..1, Gaussian blur of that radius in pixels."""
    image = Image.fromarray(to_bytes(picture)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image) / 255


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """A picture in 0..1 as uint8."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def things(rng, catalogue, looks, names, size: int):
    """A scene (size, size, 3) with the named things, the last in front; and of each a (size, size) bool.

    Args:
        catalogue: EVERYDAY or OBJECTS.
        looks: by name.
    """
    picture, masks = _scene(rng, size), []
    for name in names:
        radius = size * rng.uniform(0.2, 0.5)
        centre = rng.uniform(0.85 * radius, size - 0.85 * radius, 2)
        mask = _draw_thing(rng, picture, catalogue[name], looks[name], centre, radius)
        masks = [m & ~mask for m in masks] + [mask]
    return _light(rng, picture), masks


def labels_of(masks: list[np.ndarray], values: list[int]) -> np.ndarray:
    """The masks (H, W) of things, each with its value from 1, in one (H, W) uint8; 0 elsewhere."""
    labels = np.zeros(masks[0].shape, np.uint8)
    for mask, value in zip(masks, values, strict=True):
        labels[mask] = value
    return labels


def with_void_borders(labels: np.ndarray) -> np.ndarray:
    """Labels (H, W) whose pixels at a border of two are 255, of no class."""
    border = np.zeros_like(labels, bool)
    border[1:] |= labels[1:] != labels[:-1]
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return np.where(border, np.uint8(255), labels)


def land(rng, size: int, cells: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """A tile (size, size, 3) seen from above and its classes (size, size) from 0, 6 for unknown.

    Args:
        size: pixels, a multiple of 8.
        cells: areas of one class.
    """
    classes = _regions(rng, size, cells)
    tile = np.zeros((size, size, 3))
    for label, surface in enumerate(_surfaces(rng, size)):
        tile[classes == label] = surface[classes == label]
    haze = 0.15 * _noise(rng, size, size, 2, 2)
    return _light(rng, _blend(tile, (0.85, 0.88, 0.9), haze)), classes


def _regions(rng, size: int, cells: int) -> np.ndarray:
    """A map (size, size) of classes 0..6: wavy cells around random seeds, a little unknown."""
    y, x = np.mgrid[:size, :size] / size
    x = x + 0.12 * (_noise(rng, size, size, 6) - 0.5)
    y = y + 0.12 * (_noise(rng, size, size, 6) - 0.5)
    seeds = rng.rand(cells, 2)
    labels = rng.permutation(np.arange(max(cells, 6)) % 6)[:cells]
    # Row by row: of a whole tile the distances to all seeds would take more than half a gigabyte.
    distances = ((u[:, None] - seeds[:, 0]) ** 2 + (v[:, None] - seeds[:, 1]) ** 2 for u, v in zip(x, y))
    classes = labels[np.stack([distance.argmin(-1) for distance in distances])]
    classes[(_noise(rng, size, size, 5) > 0.96)] = 6
    return classes


def _surfaces(rng, size: int) -> list[np.ndarray]:
    """One picture (size, size, 3) per class as seen from above, and one for unknown."""

    def fine():
        return _noise(rng, size, size, 60, 2)

    y, x = np.mgrid[:size, :size]
    fields = _noise(rng, size, size, 7, 1)
    angle = np.floor(fields * 4) * 0.8
    furrows = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.9)
    agriculture = _blend(
        _blend((0.45, 0.5, 0.22), (0.68, 0.62, 0.32), np.floor(fields * 5) / 5),
        (0.3, 0.38, 0.15),
        0.45 * furrows,
    )
    blocks = ((x % 24 < 3) | (y % 20 < 3)).astype(float)
    roofs = np.kron(rng.rand(size // 8, size // 8), np.ones((8, 8)))
    urban = _blend(_blend((0.42, 0.4, 0.4), (0.78, 0.7, 0.66), roofs), (0.55, 0.55, 0.56), blocks)
    rangeland = _blend((0.5, 0.5, 0.3), (0.6, 0.55, 0.38), _noise(rng, size, size, 14))
    crowns = _noise(rng, size, size, 80, 1)
    forest = _blend((0.08, 0.2, 0.08), (0.25, 0.4, 0.18), crowns)
    water = _blend((0.08, 0.16, 0.24), (0.12, 0.24, 0.3), _noise(rng, size, size, 10))
    barren = _blend((0.72, 0.64, 0.52), (0.86, 0.8, 0.7), _noise(rng, size, size, 25))
    unknown = _blend((0.75, 0.75, 0.75), (0.95, 0.95, 0.95), _noise(rng, size, size, 8))
    return [
        _blend(s, 0.8 * s, 0.6 * fine())
        for s in (agriculture, urban, rangeland, forest, water, barren, unknown)
    ]


def lesion(rng, kind: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Skin (size, size, 3) with a lesion, hairs and a dark rim now and then; its mask (size, size) bool."""
    y, x = (np.mgrid[:size, :size] / size - 0.5) * 2
    tone = rng.uniform(0, 1)
    skin = np.array((0.9, 0.72, 0.62)) * (1 - tone) + np.array((0.72, 0.5, 0.4)) * tone
    picture = _blend(skin, 0.9 * skin, _noise(rng, size, size, 5))
    picture = _blend(picture, (0.85, 0.5, 0.45), 0.3 * (_noise(rng, size, size, 3) > 0.6))
    reach = {"nevus": (0.25, 0.5), "melanoma": (0.35, 0.8), "seborrheic_keratosis": (0.28, 0.65)}[kind]
    ragged = {"nevus": 0.12, "melanoma": 0.45, "seborrheic_keratosis": 0.25}[kind]
    rx, ry = rng.uniform(*reach), rng.uniform(*reach)
    cx, cy = rng.uniform(-0.3, 0.3, 2)
    angle = rng.uniform(0, np.pi)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    field = (u / rx) ** 2 + (v / ry) ** 2 + ragged * 2 * (_noise(rng, size, size, 4) - 0.5)
    mask = field < 1
    soft = np.clip((1 - field) / {"nevus": 0.5, "melanoma": 0.3, "seborrheic_keratosis": 0.15}[kind], 0, 1)
    depth = rng.uniform(0.35, 0.9)  # some lesions are barely darker than the skin
    brown = skin * (1 - depth) + np.array((0.32, 0.18, 0.12)) * depth
    body = _blend(brown, 0.75 * brown, _noise(rng, size, size, 10))
    if kind == "melanoma":
        body = _blend(body, (0.2, 0.2, 0.28), 0.8 * (_noise(rng, size, size, 4) > 0.55))
    if kind == "seborrheic_keratosis":
        body = _blend(body, (0.85, 0.75, 0.55), 0.5 * (_noise(rng, size, size, 22) > 0.7))
    picture = _blend(picture, body, soft)
    sheet = Image.fromarray(to_bytes(picture))
    pen = ImageDraw.Draw(sheet)
    for _ in range(rng.randint(0, 9)):
        start, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        headings = heading + rng.uniform(-0.12, 0.12) * np.arange(14)
        hair = start + 8 * np.stack([np.cos(headings), np.sin(headings)], -1).cumsum(0)
        pen.line([tuple(point) for point in hair], fill=(50, 32, 25), width=1)
    picture = np.asarray(sheet) / 255
    if rng.rand() < 0.4:
        picture = picture * np.clip((1.25 - np.hypot(x, y)) * 6, 0.05, 1)[..., None]
    return _light(rng, picture), mask


def chest(rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A frontal chest picture (size, size) grey, and the mask of both lungs."""
    y, x = (np.mgrid[:size, :size] / size - 0.5) * 2
    x, y = x + rng.uniform(-0.32, 0.32), y + rng.uniform(-0.3, 0.3)
    angle = rng.uniform(-0.3, 0.3)
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    scale = rng.uniform(0.62, 1.15)
    x, y = x / scale, y / (scale * rng.uniform(0.85, 1.1))
    wobble = 0.25 * (_noise(rng, size, size, 3) - 0.5)
    body = (x / 0.95) ** 4 + ((y - 0.2) / 1.3) ** 4 + wobble
    picture = np.clip(0.12 + 0.55 * np.clip((1.15 - body) * 3, 0, 1), 0, 1)
    mask = np.zeros((size, size), bool)
    for side in (-1, 1):
        width, height = rng.uniform(0.27, 0.36), rng.uniform(0.55, 0.7)
        u = (side * x - 0.43 - 0.06 * y) / width
        v = (y + 0.05) / height
        field = np.abs(u) ** 2.4 + np.abs(v) ** 2.6 * (1 + 0.5 * np.clip(-v, 0, 1)) + wobble
        field = field + 1.2 * np.clip(0.5 - np.hypot(x - 0.2, y - 0.45) / 0.55, 0, 1) * (side == 1)
        mask |= field < 1
        dark = np.clip((1 - field) * 3, 0, 1) * rng.uniform(0.35, 0.75)
        picture = picture * (1 - dark) + 0.12 * dark
    ribs = np.clip(np.sin((y + 0.35 * np.abs(x)) * rng.uniform(17, 22)), 0, 1) ** 2
    picture += 0.13 * ribs * (body < 1)
    picture += 0.3 * np.exp(-((x / 0.09) ** 2)) * (y > -1.2)
    heart = ((x - 0.14) / 0.32) ** 2 + ((y - 0.4) / 0.36) ** 2
    picture += 0.25 * np.clip(1 - heart, 0, 1)
    haze = rng.uniform(0, 0.35)
    picture = picture * (1 - haze * _noise(rng, size, size, 3)) + haze * 0.5 * _noise(rng, size, size, 4)
    picture = rng.uniform(0.0, 0.15) + rng.uniform(0.7, 1.05) * picture
    return np.clip(_blurred(picture, 1.0) + rng.normal(0, 0.02, picture.shape), 0, 1), mask
