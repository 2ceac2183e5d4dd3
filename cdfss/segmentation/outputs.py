"""What is written of a segmented picture: masks, probabilities, overlays, polygons, areas."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cdfss.running.files import replacing
from cdfss.segmentation import polygons

Colour = tuple[int, int, int]
Classes = Mapping[str, int]  # value of each class in label maps
Regions = dict[str, list[polygons.Region]]  # of each class

AREAS = ("name", "file", "width", "height", "class", "value", "pixels", "share", "regions")
SMALLEST, LARGEST = 640, 1800  # pixels of the longer side of an overlay
LINE = 2  # pixels of an overlay's outlines, with one darker pixel on their outside
FILL = 0.22  # share of the class's colour inside


def write_mask(
    path: str | Path, labels: np.ndarray, values: Classes, colours: Mapping[str, Colour]
) -> None:
    """A PNG of a label map (H, W) uint8: 0 and 255 for a single class, else values with a palette."""
    if len(values) == 1:
        return _save(Image.fromarray(np.where(labels > 0, np.uint8(255), np.uint8(0))), path, "PNG")
    image = Image.fromarray(labels).convert("L")
    palette = np.zeros((256, 3), np.uint8)
    for name, value in values.items():
        palette[value] = colours[name]
    image.putpalette(palette.ravel().tolist())
    _save(image, path, "PNG")


def write_probability(path: str | Path, probability: np.ndarray) -> None:
    """Probability (H, W) in 0..1: float32 in a .tif; or whole numbers of 16 bits in a .png, 65535 for 1."""
    if Path(path).suffix == ".tif":
        _save(Image.fromarray(probability.astype(np.float32)), path, "TIFF")
    else:
        values = probability.astype(np.float32) * 65535
        image = Image.fromarray(np.rint(values, out=values).astype(np.uint16))
        _save(image, path, "PNG", compress_level=1)  # more takes longer and saves nothing


def write_json(path: str | Path, content) -> None:
    """JSON in UTF-8, names as they are."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def write_overlay(
    path: str | Path,
    picture: np.ndarray,
    labels: np.ndarray,
    values: Classes,
    colours: Mapping[str, Colour],
) -> None:
    """A JPEG of `overlay`, below which stand the names of classes where there are several."""
    image = Image.fromarray(overlay(picture, labels, values, colours))
    there = [name for name, value in values.items() if (labels == value).any()]
    if len(values) > 1 and there:
        image = _with_legend(image, there, colours)
    _save(image, path, "JPEG", quality=92, subsampling=0)


def _with_legend(image: Image.Image, names: list[str], colours: Mapping[str, Colour]) -> Image.Image:
    """An image with a white band below it that shows the colour of each name."""
    font, gap, line = _font(), 10, 24
    places, x, y = [], gap, 4
    for name in names:
        width = round(font.getlength(name)) + 2 * gap + line
        if x + width > image.width and x > gap:
            x, y = gap, y + line
        places.append((x, y))
        x += width
    whole = Image.new("RGB", (image.width, image.height + y + line + 4), "white")
    whole.paste(image)
    for name, (x, y) in zip(names, places):
        top = image.height + y
        whole.paste(colours[name], (x, top + 4, x + 16, top + 20))
        draw_text(whole, (x + line, top + 2), name, image.width - x - line)
    return whole


def draw_text(image: Image.Image, corner: tuple[int, int], text: str, width: int) -> None:
    """Black text at a corner (x, y), shortened to a width in pixels."""
    font = _font()
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    ImageDraw.Draw(image).text(corner, text, fill="black", font=font)


@cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib  # whose font has the letters of many languages

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 14)


def _save(image: Image.Image, path: str | Path, kind: str, **options) -> None:
    with replacing(path) as temporary:
        image.save(temporary, format=kind, **options)


def overlay(
    picture: np.ndarray, labels: np.ndarray, values: Classes, colours: Mapping[str, Colour]
) -> np.ndarray:
    """A picture (H, W, 3) uint8 with each class of a label map (H, W) outlined and lightly filled.

    Its longer side is from SMALLEST to LARGEST pixels, so that outlines are as thick on each.
    """
    height, width = labels.shape
    longer = max(height, width)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    size = max(1, round(width * scale)), max(1, round(height * scale))
    shown = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), np.float32)
    lines = np.zeros(shown.shape[:2], np.uint8)  # value of the class whose outline it is
    halo = np.zeros(shown.shape[:2], bool)
    for name, value in values.items():
        mask = _shrunk(labels == value, size)
        if mask.any():
            shown[mask] = (1 - FILL) * shown[mask] + FILL * np.array(colours[name], np.float32)
            lines[mask & ~ndimage.binary_erosion(mask, iterations=LINE, border_value=1)] = value
            halo |= ndimage.binary_dilation(mask) & ~mask
    shown[halo & (lines == 0)] *= 0.35
    for name, value in values.items():
        shown[lines == value] = colours[name]
    return np.rint(shown).astype(np.uint8)


def _shrunk(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at the size (W, H) of an overlay; what is thin does not vanish in a smaller one."""
    if size[0] >= mask.shape[1]:
        return np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    share = Image.fromarray(mask.view(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
    return np.array(share) >= 64


def areas(name: str, file: str, labels: np.ndarray, values: Classes) -> list[dict]:
    """A row of AREAS for each class: its pixels, their share of the picture, and its regions."""
    rows = []
    for of_class, value in values.items():
        mask = labels == value
        pixels = int(mask.sum())
        regions = polygons.number_of(mask) if pixels else 0
        cells = (name, file, *labels.shape[::-1], of_class, value, pixels, pixels / labels.size, regions)
        rows.append(dict(zip(AREAS, cells)))
    return rows


def regions_of(labels: np.ndarray, values: Classes) -> Regions:
    """Regions of each class of a label map (H, W)."""
    return {name: polygons.regions(labels == value) for name, value in values.items()}


def geojson(name: str, shape: tuple[int, int], regions: Regions, values: Classes) -> dict:
    """GeoJSON of a picture (H, W): a feature for each region of each class, with its pixels as `area`.

    Coordinates are pixels from the upper left corner, x right and y down.
    """
    features = [
        {
            "type": "Feature",
            "properties": {
                "class": of_class,
                "value": values[of_class],
                "area": region.pixels,
                "axes": "pixels, y down",
            },
            "bbox": _corners(region.box),
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [*ring.tolist(), ring[0].tolist()] for ring in (region.outer, *region.holes)
                ],
            },
        }
        for of_class, found in regions.items()
        for region in found
    ]
    axes = "pixels from the upper left corner, x right, y down"
    picture = {"name": name, "width": shape[1], "height": shape[0], "axes": axes}
    return {"type": "FeatureCollection", "picture": picture, "features": features}


def _corners(box: tuple[int, int, int, int]) -> list[int]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def annotations(shape: tuple[int, int], regions: Regions, values: Classes) -> list[dict]:
    """COCO's annotations, without their ids: one for each region, a polygon, or RLE if it has holes.

    Args:
        shape: of the picture, (H, W).
    """
    return [
        {
            "category_id": values[name],
            "segmentation": rle(region.inside, region.box[:2], shape)
            if region.holes
            else [region.outer.ravel().tolist()],
            "area": region.pixels,
            "bbox": list(region.box),
            "iscrowd": 0,
        }
        for name, found in regions.items()
        for region in found
    ]


def coco(made: list[dict], values: Classes) -> dict:
    """COCO's file of pictures that are made: file, height, width, and their `annotations` as "coco"."""
    images: list[dict] = []
    found: list[dict] = []
    for number, entry in enumerate(made, 1):
        size = {"width": entry["width"], "height": entry["height"]}
        images.append({"id": number, "file_name": entry["file"], **size})
        for annotation in entry["coco"]:
            found.append({"id": len(found) + 1, "image_id": number, **annotation})
    categories = [{"id": value, "name": name} for name, value in values.items()]
    return {"images": images, "categories": categories, "annotations": found}


def rle(inside: np.ndarray, corner: tuple[int, int], shape: tuple[int, int]) -> dict:
    """COCO's compressed RLE of a mask (h, w) bool at a corner (x, y) of a picture (H, W).

    The mask's pixels are runs down the columns of the picture, that of background first. Each length is
    given as the difference from the one two before it, in groups of five bits, the lowest first, each a
    printable sign.
    """
    columns, rows = np.nonzero(inside.T)
    pixels = (columns + corner[0]) * shape[0] + rows + corner[1]  # in order
    ends = np.flatnonzero(np.diff(pixels) != 1)
    first, last = pixels[np.append(0, ends + 1)], pixels[np.append(ends, len(pixels) - 1)]
    edges = np.stack([first, last + 1], 1).ravel()
    counts = np.diff(edges, prepend=0).tolist()
    if rest := shape[0] * shape[1] - int(edges[-1]):
        counts.append(rest)
    signs = []
    for place, count in enumerate(counts):
        rest = count - counts[place - 2] if place > 2 else count
        while True:
            group, rest = rest & 31, rest >> 5
            # The fifth bit is the sign of what is not written.
            last = rest == (-1 if group & 16 else 0)
            signs.append(chr(48 + (group if last else group | 32)))
            if last:
                break
    return {"size": list(shape), "counts": "".join(signs)}
