"""Reading images and masks from files, at a square size (HSNet data/dataset.py).

The public data sets are read exactly as the published code reads them. A user's own pictures come
in more kinds: they are turned as their camera says, scaled from more than 8 bits, and their masks
are taken only where one foreground is all that they can mean.
"""

import os
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
from PIL import Image, ImageFilter

VOID = 255  # value of pixels in index masks that belong to no class and do not count

# Others of Pillow's formats are not pictures of data sets, and some start programs (EPS).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# EXIF orientation -> what turns the stored picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

BLACK, WHITE = 31, 224  # values up to and from which a pixel of a mask counts as black and as white
TRANSPARENT = "is transparent everywhere; save it without its alpha channel"
SEVERAL = "save a mask of two values for every class, in a folder of its own"


@dataclass(frozen=True)
class Reading:
    """How the pictures of a data set are read.

    Attributes:
        own: a user's own pictures (format "folder"); else exactly as the published code reads them.
        value_range: values of black and white in pictures of more than 8 bits.
        max_megapixels: size above which a picture is refused before it is decoded.
        limit_key, range_key, too_large: what messages call the two settings, and what they advise for
            pictures above the limit.
    """

    own: bool = False
    value_range: tuple[float, float] | None = None
    max_megapixels: float = 200.0

    limit_key: ClassVar[str] = "data.<name>.max_megapixels"
    range_key: ClassVar[str] = "data.<name>.value_range"
    too_large: ClassVar[str] = "raise it if the picture is what it should be, else remove the pair"

    def __post_init__(self):
        if self.value_range is not None:  # a list in JSON
            object.__setattr__(self, "value_range", tuple(map(float, self.value_range)))

    @classmethod
    def of(cls, settings: dict) -> "Reading":
        """From `Jobs.index_settings`."""
        limit = settings.get("max_megapixels", cls.max_megapixels)
        return cls(settings["format"] == "folder", settings.get("value_range"), limit)

    @property
    def pixels(self) -> int:
        """The largest number of pixels of a picture."""
        return int(self.max_megapixels * 1e6)


def file_bytes(path: str | Path, reading: Reading = Reading()) -> bytes:
    """Content of a picture's file.

    Raises:
        ValueError: when it is empty, or larger than any picture within the limit can be.
    """
    most = 8 * reading.pixels + 2**24  # four values of 16 bits a pixel, and what goes with them
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length == 0:
            raise ValueError("is an empty file")
        if length > most:
            raise ValueError(
                f"is a file of {length / 1e6:.4g} MB, larger than any picture within "
                f"{_limit(reading)} is; {reading.too_large}"
            )
        return file.read()


def read_image(
    file: str | Path | BinaryIO | Image.Image, size: int, reading: Reading = Reading()
) -> np.ndarray:
    """RGB picture resized bilinearly, without keeping its aspect: (size, size, 3) uint8.

    Raises:
        ValueError: says in one line what is wrong with the file.
    """
    with opened(file, reading) as image:
        image = _rgb(image, reading)
        return np.array(image.resize((size, size), Image.Resampling.BILINEAR))


def whole_image(file: str | Path | BinaryIO | Image.Image, reading: Reading = Reading()) -> np.ndarray:
    """RGB picture at its own size: (H, W, 3) uint8.

    Raises:
        ValueError: as `read_image` raises it.
    """
    with opened(file, reading) as image:
        return np.array(_rgb(image, reading))


def image_size(file: str | Path | BinaryIO | Image.Image, reading: Reading = Reading()) -> tuple[int, int]:
    """Height and width of a picture, decoded to its end, as `read_image` sees it.

    Raises:
        ValueError: as `read_image` raises it.
    """
    with opened(file, reading) as image:
        if reading.own:
            image = _rgb(image, reading)
        image.load()
        return image.height, image.width


def read_mask(
    file: str | Path | BinaryIO, value: int | None, size: int, reading: Reading = Reading()
) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and void of a mask file, each (size, size) bool, resized to the nearest pixel.

    Args:
        value: class value in an index mask (255 is void); None for a binary mask.

    Raises:
        ValueError: says in one line what is wrong with the file.
    """
    foreground, void = whole_mask(file, value, reading)
    nothing = np.zeros((size, size), bool)
    return nearest(foreground, size), nothing if void is None else nearest(void, size)


def whole_mask(
    file: str | Path | BinaryIO, value: int | None, reading: Reading = Reading()
) -> tuple[np.ndarray, np.ndarray | None]:
    """Foreground (H, W) bool at its own size, and void (H, W) bool; None where a mask cannot have any.

    Raises:
        ValueError: as `read_mask`, whose arguments these are.
    """
    if value is None:
        return binary_foreground(file, reading), None
    values = index_values(file, reading)
    return values == value, values == VOID


def binary_foreground(
    file: str | Path | BinaryIO | Image.Image, reading: Reading = Reading()
) -> np.ndarray:
    """(H, W) bool of a binary mask file: grey values from 128, or 1 where there are only 0 and 1.

    A user's own mask may also have its shape in transparency, a palette, one colour on black, or
    two values of more than 8 bits.

    Raises:
        ValueError: says in one line what is wrong with the file, or why its foreground is not clear.
    """
    with opened(file, reading) as image:
        if reading.own:
            return _own_foreground(_upright(image))
        grey = np.array(image.convert("L"))
    return grey >= 128 if grey.max() > 1 else grey == 1


def index_values(file: str | Path | BinaryIO | Image.Image, reading: Reading = Reading()) -> np.ndarray:
    """(H, W) uint8 of an index mask file (palette or grey).

    Raises:
        ValueError: says in one line what is wrong with the file.
    """
    with opened(file, reading) as image:
        mode = image.mode
        values = np.array(_upright(image) if reading.own else image)
    if values.ndim != 2:
        raise ValueError(f"is a colour picture (mode {mode}); expected class values")
    if values.dtype == np.uint8:
        return values
    if not ((values >= 0) & (values <= 255) & (values == np.floor(values))).all():
        raise ValueError(
            f"has values from {values.min()} to {values.max()}; expected classes from 0 to 255"
        )
    return values.astype(np.uint8)


def label_colours(file: str | Path | BinaryIO | Image.Image, reading: Reading) -> np.ndarray:
    """(H, W, 3) uint8: colours of a user's label map, black where it is transparent.

    Raises:
        ValueError: says in one line what is wrong with the file.
    """
    with opened(file, reading) as image:
        image = _upright(image)
        if _is_deep(image):
            raise ValueError("is grey of more than 8 bits; expected a colour for every class")
        if not _is_transparent(image):
            return np.array(image.convert("RGB"))
        values = np.array(image.convert("RGBA"))
    visible = values[..., 3] >= 128
    if not visible.any():
        raise ValueError(TRANSPARENT)
    return values[..., :3] * visible[..., None]


def nearest(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) -> (size, size) by the rule of torch's mode='nearest', float32 scale included."""
    rows, columns = (
        np.minimum((np.arange(size, dtype=np.float32) * np.float32(side / size)).astype(int), side - 1)
        for side in mask.shape
    )
    return mask[rows[:, None], columns]


@contextmanager
def opened(file: str | Path | BinaryIO | Image.Image, reading: Reading):
    """Pillow's image of a file, its header read and its size allowed, closed when the block ends.

    An image that is Pillow's already is given as it is, and left open.

    Raises:
        ValueError: one line that says what is wrong with the file, for errors inside the block too.
    """
    try:
        with _pillow.silent(), _pillow.open(file, reading) as image:
            yield image
    except Image.DecompressionBombError as error:
        # Of pictures, and of tiles in them, twice as large as allowed.
        said = str(error).split(" exceeds")[0]
        raise ValueError(f"{said} is more than {_limit(reading)} allows; {reading.too_large}") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"is not a picture that can be read; expected one of {', '.join(FORMATS)}, of 8 bits a value "
            "or grey of 16 or 32"
        ) from error
    except MemoryError as error:
        raise ValueError("needs more memory than there is") from error
    except Exception as error:  # Pillow raises many kinds for a bad file
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said) from error


def _limit(reading: Reading) -> str:
    return f"{reading.limit_key} ({reading.max_megapixels:g})"


class _Pillow:
    """Pillow's settings for the whole process, changed only while this module reads."""

    def __init__(self):
        self._opening, self._counting = threading.Lock(), threading.Lock()
        self._readers, self._filters = 0, None

    @contextmanager
    def open(self, file, reading: Reading):
        """An image within the limits of `reading`, closed when the block ends."""
        if isinstance(file, Image.Image):
            yield file
            return
        with self._allowing(reading):
            image = Image.open(file, formats=FORMATS)
        with image:
            width, height = image.size
            if width * height > reading.pixels:
                raise ValueError(
                    f"is {width} x {height} pixels ({width * height / 1e6:.4g} megapixels), more than "
                    f"{_limit(reading)} allows; {reading.too_large}"
                )
            if reading.own:
                with self._allowing(reading):
                    frames = _frames(image)
                if frames > 1:
                    raise ValueError(
                        f"has {frames} pictures in one file ({image.format}), and which is meant is not "
                        "clear; save the one to be used as a file of its own"
                    )
            yield image

    @contextmanager
    def _allowing(self, reading: Reading):
        """Pillow's own limit set to ours, since land-cover tiles are larger than it, and no bombs."""
        with self._opening:
            usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, reading.pixels
            try:
                yield
            finally:
                Image.MAX_IMAGE_PIXELS = usual

    @contextmanager
    def silent(self):
        """Without Pillow's warnings: a picture is taken or refused.

        The first reader changes the filters and the last one puts them back; were it each thread's
        own doing, they would put back what another has changed.
        """
        with self._counting:
            if self._readers == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._readers += 1
        try:
            yield
        finally:
            with self._counting:
                self._readers -= 1
                if self._readers == 0:
                    self._filters.__exit__(None, None, None)


_pillow = _Pillow()


def _frames(image: Image.Image) -> int:
    """Pictures in a file that could each be the one that is meant."""
    number = getattr(image, "n_frames", 1)
    if image.format == "MPO":  # a camera's picture first, then its preview or depth
        return 1
    if image.format != "TIFF" or number == 1:
        return number
    pages = 0
    for frame in range(number):
        image.seek(frame)
        # NewSubfileType: bit 0 is a smaller copy (map tiles have them), bit 2 a transparency mask.
        pages += not image.tag_v2.get(254, 0) & 5
    image.seek(0)
    return max(pages, 1)


def _upright(image: Image.Image) -> Image.Image:
    """The decoded picture turned as its EXIF orientation says."""
    image.load()
    if image.format == "TIFF":  # Pillow has turned it, and by version keeps the tag or not
        return image
    turn = UPRIGHT.get(image.getexif().get(0x0112))
    return image if turn is None else image.transpose(turn)


def _is_deep(image: Image.Image) -> bool:
    """Whether a grey picture has more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


def _rgb(image: Image.Image, reading: Reading) -> Image.Image:
    """A decoded picture in RGB of 8 bits."""
    if not reading.own:
        return image.convert("RGB")
    stored = _stored_as(image)
    image = _upright(image)
    if _is_deep(image):
        unsigned = image.mode.startswith("I;16") or (stored.startswith("I;16") and "S" not in stored)
        return Image.fromarray(_to_8_bits(np.array(image), unsigned, reading)).convert("RGB")
    if stored.endswith((";16B", ";16L", ";16N")):
        brightest = max(high for _, high in image.convert("RGB").getextrema())
        if reading.value_range not in (None, (0, 65535)) or brightest < 16:
            raise ValueError(
                f"has colours of 16 bits, of which only the upper 8 can be read (here up to {brightest}), "
                f"and {reading.range_key} is for grey; save it with 8 bits a colour"
            )
    if _is_transparent(image):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[1] == 0:
            raise ValueError(TRANSPARENT)
        # White, as viewers and web pages show it.
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _stored_as(image: Image.Image) -> str:
    """Pillow's name of how pixels lie in the file, such as "I;16B"; empty where it has none."""
    tiles = getattr(image, "tile", None)  # of an image that was not read from a file
    arguments = tiles[0][3] if tiles else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _to_8_bits(values: np.ndarray, unsigned: bool, reading: Reading) -> np.ndarray:
    """(H, W) grey of 16 or 32 bits -> (H, W) uint8, from black at 0 to white at 255.

    Args:
        unsigned: the file holds unsigned numbers of 16 bits.
        reading: without a `value_range`, the values alone say what is black and white.

    Raises:
        ValueError: when values do not say what black and white are.
    """
    low, high = values.min().item(), values.max().item()
    whole = values.dtype.kind != "f"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("has values that are no numbers (NaN or infinite); replace them")
    if reading.value_range is not None:
        black, white = reading.value_range
    elif unsigned and high >= 4096:
        black, white = 0, 65535
    elif not whole and low >= 0 and high <= 1:
        black, white = 0, 1
    else:
        kind = "whole numbers" if whole else "floating point numbers"
        example = f"[{low:.6g}, {high:.6g}]"
        if whole and low >= 0:
            example = f"[0, {max(2 ** high.bit_length() - 1, 255)}]"
        raise ValueError(
            f"has {kind} from {low:.6g} to {high:.6g}, and which are black and white is not clear; set "
            f"{reading.range_key}, for example to {example}"
        )
    scaled = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), 256):  # in parts, since they are of 8 bytes a pixel
        part = (values[start : start + 256].astype(np.float64) - black) / (white - black)
        scaled[start : start + 256] = np.rint(255 * part.clip(0, 1))
    return scaled


def _own_foreground(image: Image.Image) -> np.ndarray:
    """(H, W) bool of a user's mask, upright."""
    if _is_deep(image):
        return _higher_of_two(np.array(image))
    if _is_transparent(image):
        colours = image.convert("RGBA")
        alpha = np.array(colours.getchannel("A"))
        if alpha.max() == 0:
            raise ValueError(TRANSPARENT)
        if alpha.min() != alpha.max():
            return _visible_foreground(np.array(colours.convert("RGB")), alpha)
        if image.mode != "P":
            image = colours.convert("RGB")
    if image.mode == "1":
        return np.array(image)
    if image.mode == "P":
        return _palette_foreground(image)
    if image.mode == "L":
        return _grey_foreground(np.array(image))
    return _colour_foreground(np.array(image.convert("RGB")))


def _higher_of_two(values: np.ndarray) -> np.ndarray:
    """(H, W) of 16 or 32 bits -> (H, W) bool: the higher of two values; a single one if above 0."""
    low, high = values.min(), values.max()
    if not ((values == low) | (values == high)).all():  # so it is where values are NaN
        found = np.unique(values)
        raise ValueError(
            f"has the values {_listed(found[:4].tolist(), len(found))}; expected two in a mask of more "
            f"than 8 bits. If these are classes, {SEVERAL}"
        )
    return values == high if low != high else values > 0


def _visible_foreground(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) and alpha (H, W) -> (H, W) bool of a mask that is transparent in places."""
    visible = alpha >= 128
    shown = colours[visible]
    if (shown == shown[:1]).all():  # the shape is in alpha alone
        return _grey_foreground(alpha)
    colours[~visible] = 0  # what lies below transparency is left over from drawing
    return visible & _colour_foreground(colours)


def _palette_foreground(image: Image.Image) -> np.ndarray:
    """(H, W) bool of a palette mask, by its indices: the higher of two; a single one unless it is 0."""
    values = np.array(image)
    found = [value for _, value in sorted(image.getcolors(), key=lambda entry: entry[1])]
    if len(found) > 2:
        raise ValueError(
            f"is a palette picture of the values {_listed(found[:8], len(found))}, which are several "
            f"classes; {SEVERAL}"
        )
    if len(found) == 1:
        return values != 0
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    palette = np.concatenate([palette, np.zeros((256 - len(palette), 3), int)])
    low, high = palette[found].max(axis=1)
    if high <= BLACK < low:
        # Programs that shorten palettes order them as they like: here foreground would be black.
        raise ValueError(
            f"is a palette picture whose value {found[1]} is shown black and {found[0]} is not, so which "
            "is foreground is not clear; save it in grey, with 255 for foreground"
        )
    return values == found[1]


def _grey_foreground(grey: np.ndarray) -> np.ndarray:
    """(H, W) uint8 -> (H, W) bool: from 128, or 1 where there are only 0 and 1.

    Values in between may come from smooth edges and lossy files, not from more classes or a
    photograph.
    """
    counts = np.array(Image.fromarray(grey).histogram())
    found = np.flatnonzero(counts)
    low, high = found[0], found[-1]
    if high <= 1:
        return grey == 1
    if len(found) > 2:
        _must_be_edges(grey, counts)
    elif len(found) == 2 and 128 <= low < WHITE:
        raise ValueError(f"has the values {low} and {high}, both foreground (from 128); expected 0 and 255")
    return grey >= 128


def _must_be_edges(grey: np.ndarray, counts: np.ndarray) -> None:
    """Refuse a grey mask whose values between the lowest and the highest are more than edges."""
    found = np.flatnonzero(counts)
    low, high = found[0], found[-1]
    values = f"has the values {_listed(found[:8].tolist(), len(found))}"
    if len(found) > 64 and _off_edges(grey) > 0.02:
        middle = counts[BLACK + 1 : WHITE].sum() / grey.size
        raise ValueError(
            f"looks like a photograph, or is blurred: {100 * middle:.0f} % of the pixels are neither near "
            "black nor near white; expected a mask of two values"
        )
    if high < 128:
        raise ValueError(f"{values}, none of them foreground (from 128). If these are classes, {SEVERAL}")
    # Classes are areas, and edges are not: hardly any pixel of an edge equals all its neighbours.
    areas = np.bincount(grey[1:-1, 1:-1][_flat(grey)], minlength=256)
    # Lossy files shift black and white by 2 at most, where they have so many values.
    shift = 2 if len(found) > 6 else 0
    between = slice(low + shift + 1, high - shift)
    if (areas[between] > 0.05 * counts[between]).any():
        raise ValueError(f"{values}, more than a foreground and its edges. If these are classes, {SEVERAL}")


def _flat(grey: np.ndarray) -> np.ndarray:
    """(H, W) -> (H - 2, W - 2) bool: pixels that equal their eight neighbours."""
    across = grey[:, 1:] == grey[:, :-1]
    across = across[:, 1:] & across[:, :-1]
    down = (grey[1:] == grey[:-1])[:, 1:-1]
    return across[:-2] & across[1:-1] & across[2:] & down[:-1] & down[1:]


def _off_edges(grey: np.ndarray) -> float:
    """Share of pixels that are neither near black nor near white, nor beside both (8 to 16 pixels)."""

    def in_blocks(mask):  # (H, W) -> (H / 8, W / 8), rounded up: how many pixels of 8 x 8
        rows = np.add.reduceat(mask, np.arange(0, mask.shape[0], 8), axis=0, dtype=np.int32)
        return np.add.reduceat(rows, np.arange(0, mask.shape[1], 8), axis=1)

    def beside(mask):  # in the block or one of the eight around it
        blocks = Image.fromarray((in_blocks(mask) > 0).astype(np.uint8))
        return np.array(blocks.filter(ImageFilter.MaxFilter(3))) > 0

    dark, bright = grey <= BLACK, grey >= WHITE
    middle = in_blocks(~dark & ~bright)
    return middle[~(beside(dark) & beside(bright))].sum() / grey.size


def _colour_foreground(colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) bool: grey as grey, else the one colour beside black."""
    red, green, blue = np.moveaxis(colours, 2, 0)
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return _grey_foreground(np.ascontiguousarray(red))
    near_black = colours.max(axis=2) <= BLACK
    few = Image.fromarray(colours).getcolors(256)  # None where there are more
    if few and len(few) <= 2:
        black = [colour for _, colour in few if max(colour) <= BLACK]
        if len(few) == 1 or len(black) == 1:
            return ~near_black
        if (0, 0, 0) in black:
            return colours.any(axis=2)
    drawn = few is not None and len(few) <= 6  # exact colours; lossy files have more
    if not near_black.all():
        along, off = _along_main_colour(colours, 3 if drawn else 48)
        if off.sum() <= 0.05 * (~near_black).sum() and not _has_areas(colours, off):
            if not drawn:  # lossy files tint black and the main colour
                along[along <= BLACK], along[along >= WHITE] = 0, 255
            try:
                return _grey_foreground(along)
            except ValueError:
                if not few:
                    raise
    if few:
        few = [colour for _, colour in sorted(few, reverse=True)]
        raise ValueError(
            f"has the colours {_listed(few[:4], len(few))}; expected black and one other. If these are "
            f"classes, {SEVERAL}"
        )
    raise ValueError(
        "has more than 256 colours, as photographs and lossy files have; expected a mask of black and one "
        "other colour, saved without loss (PNG)"
    )


def _along_main_colour(colours: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H, W, 3) as parts, in 255ths, of the brightest one; and where they are no such part.

    Smooth edges and lossy files mix the colour with black: mixtures lie on the line between the two.

    Args:
        tolerance: how far from the line a colour may lie, in values.

    Returns:
        (H, W) uint8 from 0 for black to 255 for the brightest colour, (H, W) bool.
    """
    brightness = colours.max(axis=2)
    main = colours[brightness >= 0.75 * brightness.max()].mean(axis=0).astype(np.float32)
    part = colours @ (main / (main @ main))
    off = np.zeros(part.shape, bool)
    for channel in range(3):
        off |= np.abs(colours[..., channel] - part * main[channel]) > tolerance
    return np.rint(255 * part.clip(0, 1)).astype(np.uint8), off


def _has_areas(colours: np.ndarray, chosen: np.ndarray) -> bool:
    """Whether chosen pixels of a colour picture form areas of one colour."""
    flat = chosen[1:-1, 1:-1]
    for channel in range(3):
        flat = flat & _flat(colours[..., channel])
    return bool(flat.sum() > 0.05 * chosen.sum())


def _listed(values: list, number: int) -> str:
    """The first values of `number`, for a message."""
    shown = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values)
    return shown if number == len(values) else f"{shown} and {number - len(values)} more"
