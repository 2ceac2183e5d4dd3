"""Pictures and folders as users have them: of many kinds, half broken, or not what they seem."""

import hashlib
import io
import json
import os
import resource
import signal
import threading
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from conftest import square_mask, write_picture
from PIL import Image

from cdfss import CdfssError
from cdfss.configuration import parse
from cdfss.configuration.schema import Data
from cdfss.data import index, listing
from cdfss.data.formats import chestxray, folder, fss1000, isic2018, pascal
from cdfss.data.pictures import (
    Reading,
    binary_foreground,
    image_size,
    index_values,
    read_image,
    read_mask,
)

OWN = Reading(own=True)
RAMP = np.arange(30 * 40).reshape(30, 40)


def stored(values, kind="PNG", **options):
    """An array, or an image, as an open file of a format."""
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def alone(values, reading=OWN):
    """A grey or colour picture as it is read, without resizing: (30, 30, 3)."""
    return read_image(stored(values, "TIFF"), 30, reading)


def disc(size, radius, fine=8):
    """A disc drawn without smooth edges, and the same with: (S, S) bool and uint8."""
    y, x = (np.mgrid[: size * fine, : size * fine] + 0.5) / fine
    shape = (x - 0.52 * size) ** 2 + (y - 0.47 * size) ** 2 < radius**2
    smooth = shape.reshape(size, fine, size, fine).mean(axis=(1, 3))
    return smooth >= 0.5, np.rint(255 * smooth).astype(np.uint8)


def label_map(values, cell=12, cells=8):
    """Cells of random values of a list: (cells * cell, cells * cell) uint8."""
    chosen = np.random.RandomState(0).randint(0, len(values), (cells, cells))
    chosen.flat[: len(values)] = range(len(values))
    return np.array(values, np.uint8)[chosen.repeat(cell, 0).repeat(cell, 1)]


def photograph(size=96, seed=0):
    """Smooth random greys with noise: (S, S) uint8."""
    generator = np.random.RandomState(seed)
    coarse = Image.fromarray(generator.randint(0, 256, (6, 6)).astype(np.uint8))
    smooth = np.array(coarse.resize((size, size), Image.Resampling.BICUBIC), float)
    return (smooth + generator.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


def on_border(mask):
    """Pixels beside a change of the mask."""
    wide = np.pad(mask, 1, mode="edge")
    parts = [wide[1 + dy : wide.shape[0] - 1 + dy, 1 + dx : wide.shape[1] - 1 + dx] for dy, dx in STEPS]
    return np.any([part != mask for part in parts], axis=0)


STEPS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


# Sizes and Pillow's settings


def test_pictures_above_the_limit_are_refused_before_they_are_decoded(tmp_path):
    file = stored(np.zeros((300, 400), np.uint8))
    broken = io.BytesIO(file.getvalue()[:60])  # its header alone: decoding it would say that it is cut
    for reading in (Reading(max_megapixels=0.1), Reading(own=True, max_megapixels=0.1)):
        for read in (image_size, binary_foreground, index_values):
            with pytest.raises(
                ValueError, match=r"400 x 300 pixels \(0\.12 megapixels\).*max_megapixels \(0\.1\)"
            ):
                read(broken, reading)
    with pytest.raises(
        ValueError, match=r"Image size \(120000 pixels\) is more than data\.<name>\.max_mega"
    ):
        image_size(broken, Reading(max_megapixels=0.03))
    assert image_size(file, Reading(max_megapixels=0.12)) == (300, 400)


def test_pillows_limit_and_warnings_are_everyones_again_after_reading(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    content = stored(np.zeros((60, 60), np.uint8)).getvalue()  # Pillow would refuse it
    before, failed = list(warnings.filters), []

    def read():
        try:
            for _ in range(50):
                assert image_size(io.BytesIO(content), OWN) == (60, 60)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert warnings.filters == before
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(content))
    assert not recwarn.list


def test_warnings_of_pillow_do_not_come_through(recwarn):
    image = Image.fromarray(square_mask(value=1)).convert("P")
    file = stored(image, transparency=bytes([0, 255]))
    read_image(file, 20)
    read_image(file, 20, OWN)
    cut = stored(np.zeros((20, 20), np.uint8), "TIFF").getvalue()
    for end in range(8, len(cut), 7):
        with pytest.raises(ValueError, match=r"."):
            image_size(io.BytesIO(cut[:end]), OWN)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html></html>", "is not a picture that can be read; expected one of BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture that can be read"),
        (b"", "is not a picture that can be read"),
    ],
)
def test_other_files_are_no_pictures(content, message):
    with pytest.raises(ValueError, match=message):
        image_size(io.BytesIO(content))


# Pictures


# EXIF orientation -> how the stored array is seen.
TURNS = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", TURNS)
def test_own_pictures_and_masks_are_turned_as_their_exif_says(kind, turn):
    values = np.zeros((24, 40, 3), np.uint8)
    values[:8, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    file = stored(values, kind, exif=exif, **options)
    upright = TURNS[turn](values[..., 0])
    assert image_size(file, OWN) == upright.shape
    assert (binary_foreground(file, OWN) == (upright >= 128)).all()
    seen = read_image(file, 40, OWN)
    expected = Image.fromarray(np.ascontiguousarray(upright)).resize((40, 40), Image.Resampling.BILINEAR)
    assert np.abs(seen[..., 0].astype(int) - np.array(expected)).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_public_pictures_are_read_as_they_lie_in_the_file(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = stored(np.zeros((24, 40), np.uint8), kind, exif=exif)
    assert image_size(file) == (24, 40)
    assert binary_foreground(file).shape == (24, 40)


@pytest.mark.parametrize(
    ("values", "value_range", "black", "white"),
    [
        ((RAMP * 50).astype(np.uint16), None, 0, 65535),
        ((RAMP * 3).astype(np.uint16), (0, 4095), 0, 4095),
        ((RAMP * 3).astype(np.uint16), (1000, 2000), 1000, 2000),
        ((RAMP - 600).astype(np.int32), (-500, 500), -500, 500),
        ((RAMP / 1200).astype(np.float32), None, 0, 1),
        ((RAMP / 3 - 100).astype(np.float32), (-100, 250.5), -100, 250.5),
        (np.zeros((30, 40), np.float32), None, 0, 1),
    ],
)
def test_more_than_8_bits_are_scaled_before_resizing(values, value_range, black, white):
    scaled = 255 * ((values.astype(float) - black) / (white - black)).clip(0, 1)
    expected = Image.fromarray(np.rint(scaled).astype(np.uint8)).resize((30, 30), Image.Resampling.BILINEAR)
    seen = alone(values, Reading(own=True, value_range=value_range))
    assert (seen == np.array(expected)[..., None]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_files_of_both_kinds_are_the_same(kind):
    values = (RAMP * 50).astype(np.uint16)
    seen = read_image(stored(values, kind), 30, OWN)
    assert (seen == alone(values)).all()
    assert seen.max() == round(255 * 1199 * 50 / 65535)


def test_big_endian_and_compressed_16_bit_files_are_read():
    values = (RAMP * 50).astype(np.uint16)
    big = stored(Image.frombytes("I;16B", (40, 30), values.astype(">u2").tobytes()), "TIFF")
    packed = stored(values, "TIFF", compression="tiff_deflate")
    for file in (big, packed):
        assert (read_image(file, 30, OWN) == alone(values)).all()


def signed_16_bit(values):
    """A TIFF file of signed numbers of 16 bits, which Pillow reads and does not write."""
    file = bytearray(stored(values.astype(np.uint16), "TIFF", tiffinfo={339: 2}).getvalue())
    return io.BytesIO(bytes(file))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.uint16), r"whole numbers from 0 to 1199.*value_range, for example to \[0, 2047\]"),
        ((RAMP % 256).astype(np.uint16), r"from 0 to 255, .*for example to \[0, 255\]"),
        ((RAMP * 50).astype(np.int32), r"whole numbers from 0 to 59950"),
        ((RAMP - 5).astype(np.int32), r"from -5 to 1194.*\[-5, 1194\]"),
        ((RAMP / 1000).astype(np.float32), r"floating point numbers from 0 to 1\.199.*\[0, 1\.199\]"),
        (np.where(RAMP == 7, np.nan, 0.5).astype(np.float32), "no numbers"),
        (np.where(RAMP == 7, np.inf, 0.5).astype(np.float32), "no numbers"),
    ],
)
def test_values_that_do_not_say_what_black_and_white_are_need_a_setting(values, message):
    with pytest.raises(ValueError, match=message):
        alone(values)
    with pytest.raises(ValueError, match=message):
        image_size(stored(values, "TIFF"), OWN)


def test_signed_numbers_are_not_taken_for_unsigned_ones():
    with pytest.raises(ValueError, match="from 0 to 11990"):
        image_size(signed_16_bit(RAMP * 10), OWN)


def test_colours_of_16_bits_that_are_too_dark_to_be_read_are_refused():
    import struct
    import zlib

    def png(values):  # Pillow reads colours of 16 bits and does not write them
        def chunk(name, data):
            body = name + data
            return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

        height, width, _ = values.shape
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
        whole = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        return io.BytesIO(b"\x89PNG\r\n\x1a\n" + whole)

    colours = np.repeat(RAMP[..., None], 3, axis=2)
    assert read_image(png(colours * 50), 30, OWN).max() > 200
    with pytest.raises(ValueError, match=r"16 bits.*here up to 4"):
        image_size(png(colours), OWN)
    with pytest.raises(ValueError, match=r"value_range is for grey"):
        image_size(png(colours * 50), Reading(own=True, value_range=(0, 4095)))


def test_transparent_pictures_are_seen_on_white():
    values = np.zeros((30, 30, 4), np.uint8)
    values[:, :15] = (255, 0, 0, 255)
    values[:, 15:] = (0, 0, 255, 0)
    seen = read_image(stored(values), 30, OWN)
    assert (seen[:, :15] == (255, 0, 0)).all()
    assert (seen[:, 15:] == 255).all()
    grey = Image.fromarray(values[..., 0]).convert("LA")
    grey.putalpha(Image.fromarray(values[..., 3]))
    assert (read_image(stored(grey), 30, OWN)[:, 15:] == 255).all()
    palette = Image.fromarray((values[..., 0] > 0).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 255, 255, 0, 0])
    file = stored(palette, transparency=0)
    assert (read_image(file, 30, OWN) == seen).all()
    assert (read_image(file, 30)[:, 15:] == (0, 0, 255)).all()  # public ones as published
    with pytest.raises(ValueError, match="transparent everywhere"):
        image_size(stored(values * np.array([1, 1, 1, 0], np.uint8)), OWN)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_files_of_several_pictures_are_refused_with_their_number(kind):
    frames = [Image.fromarray(photograph(20, seed)) for seed in range(3)]
    file = stored(frames[0], kind, save_all=True, append_images=frames[1:])
    for read in (image_size, binary_foreground, index_values):
        with pytest.raises(ValueError, match=f"has 3 pictures in one file \\({kind}\\)"):
            read(file, OWN)
    assert image_size(file) == (20, 20)


def test_smaller_copies_in_a_map_tile_are_no_pictures_of_their_own():
    whole, half = Image.fromarray(photograph(40)), Image.fromarray(photograph(20))
    smaller = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from PIL.TiffImagePlugin import AppendingTiffWriter

        with AppendingTiffWriter(smaller, True) as writer:
            whole.save(writer, "TIFF")
            writer.newFrame()
            half.save(writer, "TIFF", tiffinfo={254: 1})
    smaller.seek(0)
    assert image_size(smaller, OWN) == (40, 40)


def test_other_colour_spaces_become_rgb():
    grey = Image.fromarray(photograph(40))
    for kind in ("TIFF", "JPEG"):
        options = {"quality": 100} if kind == "JPEG" else {}
        seen = read_image(stored(grey.convert("RGB").convert("CMYK"), kind, **options), 40, OWN)
        assert np.abs(seen[..., 0].astype(int) - np.array(grey)).max() <= 3


# Masks

SHAPE = square_mask(value=1).astype(bool)


def transparent(colours, alpha):
    """(30, 40) alpha over one colour, or over colours (30, 40, 3)."""
    values = np.zeros((30, 40, 4), np.uint8)
    values[..., :3], values[..., 3] = colours, alpha
    return values


def palette_mask(indices, colours):
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image.putdata(indices.astype(int).ravel().tolist())
    image.putpalette(np.array(colours, np.uint8).ravel().tolist())
    return image


def coloured(values, colours):
    return np.array(colours, np.uint8)[values]


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
NUMBERS = SHAPE.astype(int)


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(Image.fromarray(SHAPE), id="one bit"),
        pytest.param(NUMBERS.astype(np.uint8), id="0 and 1"),
        pytest.param((NUMBERS * 255).astype(np.uint8), id="0 and 255"),
        pytest.param((NUMBERS * 128).astype(np.uint8), id="0 and 128"),
        pytest.param((NUMBERS * 100 + 100).astype(np.uint8), id="100 and 200"),
        pytest.param((NUMBERS * 65535).astype(np.uint16), id="16 bits"),
        pytest.param((NUMBERS * 1).astype(np.uint16), id="16 bits, 0 and 1"),
        pytest.param((NUMBERS * 7 - 3).astype(np.int32), id="32 bits"),
        pytest.param(NUMBERS.astype(np.float32), id="floating point"),
        pytest.param(transparent((255, 255, 255), NUMBERS * 255), id="white in transparency"),
        pytest.param(transparent((0, 0, 0), NUMBERS * 255), id="black in transparency"),
        pytest.param(transparent((200, 30, 0), NUMBERS * 200), id="half transparent shape"),
        pytest.param(transparent(np.repeat(NUMBERS[..., None] * 255, 3, 2), 255), id="opaque"),
        pytest.param(transparent(np.repeat(NUMBERS[..., None] * 255, 3, 2), 9), id="alpha of one value"),
        pytest.param(
            transparent(np.repeat(NUMBERS[..., None] * 255, 3, 2), (RAMP % 40 > 2) * 255), id="visible part"
        ),
        pytest.param(palette_mask(NUMBERS, VOC), id="palette of dark colours"),
        pytest.param(palette_mask(NUMBERS * 2 + 1, VOC), id="palette, 1 and 3"),
        pytest.param(palette_mask(NUMBERS, [(255, 255, 255), (255, 0, 0)]), id="palette, red on white"),
        pytest.param(coloured(NUMBERS, [(0, 0, 0), (255, 0, 0)]), id="red on black"),
        pytest.param(coloured(NUMBERS, [(0, 0, 0), (0, 0, 90)]), id="dark blue on black"),
        pytest.param(coloured(NUMBERS, [(3, 2, 3), (0, 250, 9)]), id="green near black"),
        pytest.param(coloured(NUMBERS, [(0, 0, 0), (255, 255, 255)]), id="white in colour"),
    ],
)
def test_the_foreground_of_own_masks(mask):
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    kinds = ["TIFF"] if image.mode in ("F", "I") else ["PNG", "TIFF"]
    for kind in kinds if image.mode != "P" else ["PNG"]:
        assert (binary_foreground(stored(image, kind), OWN) == SHAPE).all()
    foreground, void = read_mask(stored(image, kinds[0]), None, 15, OWN)
    assert (foreground == SHAPE[::2, ::2][:, [int(c * 40 / 15) // 2 for c in range(15)]]).mean() > 0.8
    assert not void.any()


def test_a_palette_with_a_transparent_background_has_its_shape_in_what_is_visible():
    file = stored(palette_mask(NUMBERS, VOC), transparency=0)
    assert (binary_foreground(file, OWN) == SHAPE).all()


@pytest.mark.parametrize(
    ("mask", "foreground"),
    [
        (np.zeros((30, 40), np.uint8), 0),
        (np.zeros((30, 40, 3), np.uint8), 0),
        (np.zeros((30, 40), np.uint16), 0),
        (palette_mask(NUMBERS * 0, VOC), 0),
        (np.full((30, 40), 255, np.uint8), 1),
        (np.full((30, 40), 254, np.uint8), 1),
        (np.full((30, 40), 1, np.uint8), 1),
        (np.full((30, 40, 3), (255, 0, 0), np.uint8), 1),
        (np.full((30, 40), 65535, np.uint16), 1),
        ((NUMBERS * 38).astype(np.uint8), 0),
    ],
)
def test_masks_of_one_value_and_dark_ones(mask, foreground):
    assert binary_foreground(stored(mask), OWN).mean() == foreground


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (label_map([0, 1, 2, 3]), r"has the values 0, 1, 2, 3, none of them foreground"),
        (label_map([0, 85, 170, 255]), r"has the values 0, 85, 170, 255, more than a foreground"),
        (label_map([0, 128, 255]), r"has the values 0, 128, 255"),
        (label_map([0, 1, 255]), r"has the values 0, 1, 255"),
        (label_map([*range(34), 255]), r"has the values 0, 1, 2, 3, 4, 5, 6, 7 and 27 more"),
        (label_map([128, 255]), r"has the values 128 and 255, both foreground"),
        (label_map([0, 1, 2]).astype(np.uint16), r"has the values 0, 1, 2; expected two"),
        (label_map([0, 1, 2]).astype(np.float32) / 4, r"has the values 0, 0\.25, 0\.5; expected two"),
        (np.where(SHAPE, np.nan, 0).astype(np.float32), r"has the values 0, nan"),
        (palette_mask(label_map([0, 1, 2, 3]), VOC), r"palette picture of the values 0, 1, 2, 3"),
        (palette_mask(NUMBERS, [(255, 255, 255), (0, 0, 0)]), r"value 1 is shown black and 0 is not"),
        (
            coloured(label_map([0, 1, 2]), VOC),
            r"has the colours \(128, 0, 0\), .*\(0, 128, 0\); expected black",
        ),
        (coloured(label_map([0, 1, 2]), [(0, 0, 0), (128, 0, 0), (192, 0, 0)]), r"\(192, 0, 0\)"),
        (coloured(label_map([0, 1, 2]), [(0, 0, 0), (255, 0, 0), (255, 40, 0)]), r"\(255, 40, 0\)"),
        (coloured(label_map([0, 1, 2]), [(0, 0, 0), (1, 0, 0), (2, 0, 0)]), r"\(2, 0, 0\)"),
        (coloured(NUMBERS, [(255, 255, 255), (255, 0, 0)]), r"\(255, 255, 255\), \(255, 0, 0\)"),
        (
            coloured(
                label_map([*range(7)]),
                [(0, 0, 0), *np.eye(3, dtype=int) * 255, *255 - np.eye(3, dtype=int) * 255],
            ),
            r"and 3 more; expected black and one other",
        ),
        (transparent((255, 255, 255), 0), "transparent everywhere"),
        (
            transparent(np.repeat(NUMBERS[..., None] * 100 + 100, 3, 2), (RAMP % 40 > 2) * 255),
            "values 0, 100, 200",
        ),
        (photograph(), "looks like a photograph"),
        (np.stack([photograph(seed=seed) for seed in range(3)], axis=2), "as photographs and lossy files"),
        ((photograph() * (disc(96, 30)[0])), "looks like a photograph"),
    ],
)
def test_masks_whose_foreground_is_not_clear_are_refused(mask, message):
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    with pytest.raises(ValueError, match=message) as error:
        binary_foreground(stored(image, "TIFF" if image.mode in ("F", "I") else "PNG"), OWN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [64, 400])
@pytest.mark.parametrize("radius", [0.05, 0.3])
def test_smooth_and_lossy_edges_are_no_classes(size, radius):
    shape, smooth = disc(size, size * radius)
    hard = (shape * 255).astype(np.uint8)
    red = np.zeros((size, size, 3), np.uint8)
    red[shape] = (220, 20, 30)
    soft_red = np.rint(smooth[..., None] / 255 * np.array([220, 20, 30])).astype(np.uint8)
    files = {
        "smooth": stored(smooth),
        "smooth in colour": stored(soft_red),
        "smooth alpha": stored(np.dstack([np.full_like(red, 255), smooth])),
        "webp": stored(hard, "WEBP", quality=75),
        "enlarged": stored(Image.fromarray(hard).resize((3 * size, 3 * size), Image.Resampling.BICUBIC)),
    }
    for quality in (30, 75, 95):
        files[f"jpeg {quality}"] = stored(hard, "JPEG", quality=quality)
        files[f"white jpeg {quality}"] = stored(np.dstack([hard] * 3), "JPEG", quality=quality)
        # What was JPEG once and is PNG now.
        files[f"png {quality}"] = stored(Image.open(stored(hard, "JPEG", quality=quality)))
    for quality in (75, 95):
        files[f"red jpeg {quality}"] = stored(red, "JPEG", quality=quality)
    for kind, file in files.items():
        seen = binary_foreground(file, OWN)
        if kind == "enlarged":
            seen = seen[1::3, 1::3]
        wrong = seen != shape
        assert not (wrong & ~on_border(shape)).any(), kind
        assert wrong.sum() <= 0.1 * on_border(shape).sum() + 1, kind


def test_public_masks_are_read_as_published():
    assert binary_foreground(stored(label_map([0, 85, 170, 255]))).any()
    assert binary_foreground(stored(photograph())).any()
    assert (index_values(stored(label_map([0, 1, 255]))) == label_map([0, 1, 255])).all()


def test_class_values_are_bytes_whatever_holds_them():
    values = label_map([0, 1, 255])
    for mask in (values, values.astype(np.uint16), values.astype(np.float32), values > 0):
        for reading in (OWN, Reading()):
            seen = index_values(stored(mask, "TIFF"), reading)
            assert seen.dtype == np.uint8
            assert (seen == mask).all()
    with pytest.raises(ValueError, match=r"values from 0 to 1199; expected classes"):
        index_values(stored(RAMP.astype(np.uint16)))
    with pytest.raises(ValueError, match=r"colour picture \(mode RGB\)"):
        index_values(stored(coloured(NUMBERS, VOC)))


# Folders


def pairs(root, name="a", numbers=2, size=(40, 30)):
    for number in range(numbers):
        write_picture(root / "images" / f"{name}{number}.jpg", size, seed=number)
        write_picture(root / "masks" / f"{name}{number}.png", mask=square_mask(size))
    return root


def listed(root, reader=folder, **settings):
    """Problems of a raw data set as text, and its pairs."""
    found = reader.list_pairs(root, {"name": "mine", "splits": None, **settings})
    return [str(problem) for problem in found.problems], found.pairs


def test_what_systems_leave_behind_is_no_problem(tmp_path):
    for kind in ("roof", "tree"):
        pairs(tmp_path / kind)
    for place in (tmp_path, tmp_path / "roof", tmp_path / "roof" / "images", tmp_path / "tree" / "masks"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a0.jpg", ".hidden.png", "Icon\r"):
            (place / name).write_bytes(b"\0\1")
        for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN"):
            write_picture(place / name / "a0.jpg")
    problems, found = listed(tmp_path)
    assert problems == []
    assert [pair.class_name for pair in found] == ["roof"] * 2 + ["tree"] * 2


def test_what_a_reader_of_folders_would_not_see_is_named(tmp_path):
    pairs(tmp_path / "roof")
    write_picture(tmp_path / "roof" / "images" / "more" / "a.jpg")
    write_picture(tmp_path / "roof" / "masks" / "old" / "a.png")
    write_picture(tmp_path / "roof" / "forgotten.jpg")
    (tmp_path / "roof" / "overlays").mkdir()
    write_picture(tmp_path / "flat" / "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cased" / "Images").mkdir(parents=True)
    (tmp_path / "cased" / "Masks").mkdir()
    (tmp_path / "half" / "images").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("")
    os.mkfifo(tmp_path / "roof" / "images" / "pipe.jpg")
    (tmp_path / "roof" / "images" / "lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "roof" / "images" / "ring.jpg").symlink_to("ring.jpg")
    problems, found = listed(tmp_path)
    assert len(found) == 2
    for start in (
        "roof/images/more: is a folder inside images/, where nothing is looked for; move its pictures up",
        "roof/masks/old: is a folder inside masks/",
        "roof/forgotten.jpg: lies beside images/ and masks/ and would not be read",
        "roof/overlays: lies beside images/ and masks/",
        "flat: holds no folder; expected images/ and masks/ in a class folder",
        "empty: holds no folder",
        "cased: holds Images, Masks; expected images/ and masks/",
        "half/masks: folder is missing",
        "notes.txt: is not a class folder",
        "roof/images/pipe.jpg: is neither file nor folder, or a link to nothing",
        "roof/images/lost.jpg: is neither file nor folder",
        "roof/images/ring.jpg: is neither file nor folder",
    ):
        assert [p for p in problems if p.startswith(start)], start
    assert len(problems) == 12


def test_class_folders_beside_root_images_are_named(tmp_path):
    pairs(tmp_path)
    pairs(tmp_path / "tree")
    write_picture(tmp_path / "stray.jpg")
    (tmp_path / "readme.txt").write_text("mine")
    problems, found = listed(tmp_path)
    assert len(found) == 2
    assert [problem.split(":")[0] for problem in problems] == ["tree", "stray.jpg"]
    assert "give each a folder with images/ and masks/" in problems[0]
    (tmp_path / "images").rename(tmp_path / "Images")
    assert "images: folder is missing" in listed(tmp_path)[0]


def test_two_files_of_one_stem_are_named_together_and_not_used(tmp_path):
    pairs(tmp_path, numbers=4)
    write_picture(tmp_path / "masks" / "a0.bmp", mask=square_mask())
    write_picture(tmp_path / "images" / "a1.png")
    write_picture(tmp_path / "images" / "a1.tif")
    write_picture(tmp_path / "masks" / "lone.bmp", mask=square_mask())
    write_picture(tmp_path / "masks" / "lone.png", mask=square_mask())
    write_picture(tmp_path / "images" / "alone.bmp")
    write_picture(tmp_path / "images" / "alone.png")
    problems, found = listed(tmp_path)
    assert [pair.image.stem for pair in found] == ["a2", "a3"]
    assert problems == [
        "images/a1.jpg: is one of 3 images of the same name 'a1': images/a1.jpg, images/a1.png, "
        "images/a1.tif; keep one",
        "images/alone.bmp: is one of 2 images of the same name 'alone': images/alone.bmp, "
        "images/alone.png; keep one",
        "masks/a0.bmp: is one of 2 masks of the same name 'a0': masks/a0.bmp, masks/a0.png; keep one",
        "masks/lone.bmp: is one of 2 masks of the same name 'lone': masks/lone.bmp, "
        "masks/lone.png; keep one",
    ]


def test_two_masks_of_a_public_picture_do_not_hide_each_other(tmp_path):
    write_picture(tmp_path / "x" / "CXR_png" / "x.png", mode="L")
    for name in ("x", "x_mask"):
        write_picture(tmp_path / "x" / "masks" / f"{name}.png", mask=square_mask())
    problems, found = listed(tmp_path / "x", chestxray)
    assert not found
    assert problems == [
        "masks/x.png: is one of 2 masks of the same name 'x': masks/x.png, masks/x_mask.png; keep one"
    ]
    base = tmp_path / "i"
    for kind in "123":
        write_picture(base / isic2018.IMAGES / kind / f"{kind}.jpg")
        write_picture(base / isic2018.MASKS / f"{kind}_segmentation.png", mask=square_mask())
    write_picture(base / isic2018.MASKS / "1.png", mask=square_mask())
    problems, found = listed(base, isic2018, class_order=["a", "b", "c"])
    assert [pair.class_name for pair in found] == ["b", "c"]
    assert len(problems) == 1
    assert "1_segmentation.png" in problems[0]


def test_names_that_are_no_text_are_problems(tmp_path):
    pairs(tmp_path / "roof")
    for name in (b"caf\xe9.jpg", b"line\nbreak.jpg"):
        with open(os.path.join(os.fsencode(tmp_path / "roof" / "images"), name), "wb"):
            pass
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"h\xe4user"))
    problems, found = listed(tmp_path)
    assert len(found) == 2
    assert problems == [
        "h\\xe4user: its name is not UTF-8; rename it",
        "roof/images/caf\\xe9.jpg: its name is not UTF-8; rename it",
        "roof/images/line\\nbreak.jpg: its name has a line break or another sign that is not shown; "
        "rename it",
    ]
    json.dumps(problems).encode()
    # The folder itself may have any name: it names no class.
    root = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"r\xe4ume"))
    pairs(tmp_path / "plain").rename(root)
    assert len(listed(type(tmp_path)(root))[1]) == 2


@pytest.mark.parametrize("reader", [folder, chestxray, isic2018, fss1000, pascal])
def test_folders_that_may_not_be_read_are_named(tmp_path, monkeypatch, reader):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(type(tmp_path), "exists", refuse)
    monkeypatch.setattr(type(tmp_path), "is_dir", refuse)
    with pytest.raises(CdfssError, match=r"permission denied; give yourself access.*chmod"):
        listed(tmp_path, reader, class_order=["a", "b", "c"])


# Lists and tables


def test_lists_are_utf_8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffcafé\r\nb\rc\n".encode())
    assert listing.read_lines(path) == ["café", "b", "c", ""]
    for content, message in (
        (b"a\ncaf\xe9\n", r"list\.txt: line 2 has the byte 0xe9; expected text in UTF-8"),
        (b"a\nb\0\n", r"line 2 has a byte of value 0"),
        ("a\n".encode("utf-16"), r"line 1 has "),
    ):
        path.write_bytes(content)
        with pytest.raises(CdfssError, match=message):
            listing.read_lines(path)


def voc_lists(root, *lines):
    for name in ("one", "two"):
        write_picture(root / "JPEGImages" / f"{name}.jpg")
        write_picture(root / "SegmentationClassAug" / f"{name}.png", mask=square_mask(value=3))
    (root / "splits").mkdir(exist_ok=True)
    for fold in range(4):
        (root / "splits" / f"fold{fold}.txt").write_text("\n".join(lines if fold == 0 else []) + "\n")


@pytest.mark.parametrize(
    "line",
    [
        "../outside__03",
        "/etc/passwd__03",
        "a/../../b__03",
        f"{'x' * 300}__03",
        "one__²",
        "one__99999999",
        "one__21",
    ],
)
def test_lists_cannot_name_files_outside(tmp_path, line):
    root = tmp_path / "voc"
    write_picture(tmp_path / "voc" / "outside.jpg")
    voc_lists(root, "one__03", line)
    problems, found = listed(root, pascal)
    assert [pair.image.name for pair in found] == ["one.jpg"]
    assert len(problems) == 1
    assert "fold0.txt: line 2 is " in problems[0]


def test_class_lists_cannot_name_folders_outside(tmp_path):
    root = tmp_path / "fss"
    for name in ("inside", "inside/../../outside"):
        for number in (1, 2):
            write_picture(root / name / f"{number}.jpg")
            write_picture(root / name / f"{number}.png", mask=square_mask())
    (root / "splits").mkdir()
    (root / "splits" / "test.txt").write_bytes(
        f"\ufeffinside\n../outside\n{tmp_path}/outside\n.\n".encode()
    )
    problems, found = listed(root, fss1000)
    assert {pair.class_name for pair in found} == {"inside"}
    assert len(problems) == 3
    assert all("is not the name of a class folder" in problem for problem in problems)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"ID;Class\na;nevus\n", r"class_id\.csv: line 2 lacks ID or Class.*names 'ID;Class'"),
        (b"ID,Class\na,nevus\nb\n", r"line 3 lacks ID or Class"),
        (b"", r"names no picture"),
        (b"ID,Class\na,nevus\na,melanoma\n", r"line 3 has 'a' again"),
        (
            b'ID,Class\n"a' + b"x" * 200000 + b'",nevus\n',
            r"class_id\.csv: line . cannot be read: field larger",
        ),
        (b"ID,Class\na,n\xe9vus\n", r"line 2 has the byte 0xe9"),
    ],
)
def test_broken_tables_of_classes_are_named_with_the_line(tmp_path, table, message):
    write_picture(tmp_path / isic2018.IMAGES / "a.jpg")
    write_picture(tmp_path / isic2018.MASKS / "a_segmentation.png", mask=square_mask())
    (tmp_path / "class_id.csv").write_bytes(table)
    order = ["nevus", "seborrheic_keratosis", "melanoma"]
    with pytest.raises(CdfssError, match=message):
        listed(tmp_path, isic2018, class_order=order)
    (tmp_path / "class_id.csv").write_bytes(b"\xef\xbb\xbfID,Class\r\na,nevus\r\n/etc/passwd,nevus\r\n")
    problems, found = listed(tmp_path, isic2018, class_order=order)
    assert [pair.class_name for pair in found] == ["nevus"]
    assert problems == ["class_id.csv: '/etc/passwd' is not the name of a picture"]


# The index


def build(settings, root, **more):
    return index.build(settings(root) | more, root.parent / "index.parquet", 2, lambda line: None)


def test_masks_that_vanish_at_the_working_size_are_named(settings, tmp_path):
    root = pairs(tmp_path / "mine", numbers=3)
    dot = np.zeros((30, 40), np.uint8)
    dot[7, 9] = 255
    write_picture(root / "masks" / "a1.png", mask=dot)
    assert len(build(settings, root).rows) == 3
    assert len(build(settings, root, image_size=400).rows) == 3
    with pytest.raises(
        CdfssError, match=r"masks/a1\.png: mask is lost: its 1 foreground pixels vanish at 16 px"
    ):
        build(settings, root, image_size=16)


def test_rows_hold_the_hashes_of_both_files(settings, tmp_path):
    root = pairs(tmp_path / "mine")
    row = build(settings, root).rows.iloc[0]
    for kind in ("image", "mask"):
        assert row[f"{kind}_sha256"] == hashlib.sha256((root / row[kind]).read_bytes()).hexdigest()


def test_own_pictures_are_refused_by_the_index_with_what_to_set(settings, tmp_path):
    root = pairs(tmp_path / "mine", numbers=4)
    write_picture(root / "images" / "b.png", mask=(RAMP * 3).astype(np.uint16))
    write_picture(root / "masks" / "b.png", mask=square_mask())
    write_picture(root / "masks" / "a0.png", mask=label_map([0, 1, 2, 3]))
    (root / "images" / "a1.jpg").write_bytes(b"")
    with pytest.raises(CdfssError) as error:
        build(settings, root, max_megapixels=1)
    assert "images/b.png: image cannot be read: has whole numbers from 0 to 3597" in str(error.value)
    assert "masks/a0.png: mask cannot be read: has the values 0, 1, 2, 3" in str(error.value)
    assert "images/a1.jpg: image cannot be read: is an empty file" in str(error.value)
    rows = build(settings, root, value_range=[0, 4095], on_bad_pair="skip").rows
    assert rows["image"].tolist() == ["images/a2.jpg", "images/a3.jpg", "images/b.png"]


def test_a_turned_picture_whose_mask_is_not_is_named(settings, tmp_path):
    root = pairs(tmp_path / "mine")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph(40)[:30]).save(root / "images" / "a0.jpg", exif=exif)
    with pytest.raises(CdfssError, match=r"mask is 40 x 30 pixels, its image images/a0\.jpg 30 x 40.*EXIF"):
        build(settings, root)


def killed(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_of_the_index_is_said_with_what_to_do(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "_measure", killed)
    root = pairs(tmp_path / "mine")
    with pytest.raises(
        CdfssError, match=r"mine: a process .* was killed.*2 worked at once.*--set-threads index=1"
    ):
        build(settings, root)


# Settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "pascal", "value_range": [0, 1]}, "value_range is for format 'folder' alone"),
        (
            {"format": "folder", "root": "x", "value_range": [5, 5]},
            r"value_range is \[5, 5\]; expected black below",
        ),
        ({"format": "folder", "root": "x", "value_range": [0, float("nan")]}, "finite"),
        ({"format": "pascal", "max_megapixels": 0}, "max_megapixels is 0; it should be greater than 0"),
        ({"format": "pascal", "max_megapixels": float("inf")}, "finite"),
        ({"format": "folder", "root": "~nobody_of_this_name/x"}, "write the whole path"),
    ],
)
def test_settings_of_pictures_are_checked(given, message):
    values = {"name": "run", "data": {"mine": given}, "domains": {"mine": {}}, "variants": {"v": {}}}
    with pytest.raises(CdfssError, match=message):
        parse(values)


def test_reading_follows_the_settings(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    data = Data(format="folder", root="~/mine", splits="~/lists", value_range=(0, 4095), max_megapixels=9)
    assert str(data.root) == "/home/me/mine"
    assert str(data.splits) == "/home/me/lists"
    assert Reading.of(data.model_dump(mode="json")) == Reading(True, (0, 4095), 9)
    assert Reading.of({"format": "pascal"}) == Reading()
    assert Reading(**json.loads(json.dumps(asdict(Reading(True, (0, 1)))))) == Reading(True, (0, 1))


# Damage


def every_kind():
    """Small pictures of every format and depth, by name."""
    grey, colours = photograph(24), np.stack([photograph(24, seed) for seed in range(3)], axis=2)
    mask = (disc(24, 8)[0] * 255).astype(np.uint8)
    frames = [Image.fromarray(photograph(24, seed)) for seed in range(2)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "png": stored(mask),
        "png colours": stored(colours, exif=exif),
        "png palette": stored(palette_mask(mask > 0, VOC), transparency=bytes([0, 255])),
        "png 16": stored(grey.astype(np.uint16) * 200),
        "png alpha": stored(np.dstack([colours, mask])),
        "jpeg": stored(colours, "JPEG", exif=exif),
        "jpeg mask": stored(mask, "JPEG", progressive=True),
        "tiff": stored(mask, "TIFF"),
        "tiff packed": stored(colours, "TIFF", compression="tiff_lzw"),
        "tiff 16": stored(grey.astype(np.uint16) * 200, "TIFF", compression="tiff_deflate"),
        "tiff float": stored(grey.astype(np.float32) / 256, "TIFF"),
        "tiff pages": stored(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "webp": stored(colours, "WEBP"),
        "webp lossless": stored(mask, "WEBP", lossless=True),
        "bmp": stored(colours, "BMP"),
        "bmp mask": stored(Image.fromarray(mask > 0), "BMP"),
        "gif": stored(mask, "GIF"),
        "gif frames": stored(frames[0], "GIF", save_all=True, append_images=frames[1:]),
    }


def damaged(content, generator):
    """Sixty damaged copies: cut, with flipped bits, with random bytes in header or anywhere."""
    for number in range(60):
        copy = bytearray(content)
        if number % 4 == 0:
            copy = copy[: generator.randint(0, len(copy))]
        elif number % 4 == 1:
            for place in generator.randint(0, len(copy), 3):
                copy[place] ^= 1 << generator.randint(8)
        else:
            end = min(len(copy), 200) if number % 4 == 2 else len(copy)
            for place in generator.randint(0, end, 6):
                copy[place] = generator.randint(256)
        yield bytes(copy)


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, recwarn):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator, said, number = np.random.RandomState(0), [], 0
    for kind, file in every_kind().items():
        for content in damaged(file.getvalue(), generator):
            number += 1
            for own in (False, True):
                reading = Reading(own=own, max_megapixels=1)
                for read in (
                    lambda file, reading: read_image(file, 16, reading),
                    image_size,
                    binary_foreground,
                    index_values,
                ):
                    try:
                        read(io.BytesIO(content), reading)
                    except ValueError as error:
                        said.append(str(error))
            if number % 20 == 0:
                (tmp_path / "x").write_bytes(content)
                for values in ([None], [1]):
                    result = index._measure((tmp_path, "x", "x", values, Reading(own=True), 16))
                    assert isinstance(result, (str, tuple)), kind
    assert len(said) > 1000
    assert all(said)
    assert not any("\n" in text for text in said)
    assert not recwarn.list
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150_000  # kB; a picture of a megapixel needs up to 4 MB a copy
