"""A person's labelled pictures, in every way they have them, and what is said of what cannot be used."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cdfss import CdfssError
from cdfss.segmentation import check as checking
from cdfss.segmentation.supports import of_arrays, queries, read, read_query

SIZE = (40, 30)  # width, height
RANDOM = np.random.RandomState(0).randint(0, 256, (8, 30, 40, 3)).astype(np.uint8)


def save(path, values, **options):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **options)
    return path


def picture(path, number=0, **options):
    return save(path, RANDOM[number], **options)


def shape(value=255, size=SIZE):
    mask = np.zeros(size[::-1], np.uint8)
    mask[5:20, 10:25] = value
    return mask


def classes(*values):
    """A label map: an area for each value."""
    mask = np.zeros((30, 40), np.uint8)
    for number, value in enumerate(values):
        mask[2:25, 5 * number : 5 * number + 4] = value
    return mask


def coloured(*colours):
    palette = np.zeros((256, 3), np.uint8)
    palette[1 : len(colours) + 1] = colours
    return palette[classes(*range(1, len(colours) + 1))]


def pair(folder, name="a", mask=None, number=0):
    picture(folder / "images" / f"{name}.jpg", number)
    save(folder / "masks" / f"{name}.png", shape() if mask is None else mask)
    return folder


def found(supports):
    """Pixels of foreground by class and picture."""
    return {name: {s.name: int(s.mask.sum()) for s in of} for name, of in supports.classes.items()}


SQUARE = 225


# Where pictures and masks lie


LAYOUTS = {
    "images and masks": (["images/a.jpg", "images/b ü.jpg"], ["masks/a.png", "masks/b ü.png"], "", None),
    "masks with an ending": (
        ["images/a.jpg", "images/b.tif"],
        ["masks/a_mask.png", "masks/b_mask.png"],
        "",
        None,
    ),
    "pictures beside masks": (["a.jpg", "b c.JPG"], ["a.png", "b c.png"], "", None),
    "masks called _mask": (["a.png", "b.png"], ["a_mask.png", "b_mask.png"], "", None),
    "masks called .mask": (["a.png", "b.jpg"], ["a.mask.png", "b.mask.png"], "", None),
    "two folders": (["x/a.jpg", "x/b.jpg"], ["y/a.png", "y/b.png"], "x", "y"),
    "globs": (["x/a.jpg", "x/b.jpg"], ["y/a.png", "y/b.png"], "x/*.jpg", "y/*.png"),
    "glob of both": (["x/a.jpg", "x/b.jpg"], ["x/a.png", "x/b.png"], "x/*", None),
    "left behind by systems": (["images/a.jpg", "images/b.jpg"], ["masks/a.png", "masks/b.png"], "", None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("relative", [True, False])
def test_pictures_and_masks_are_paired_by_name(layout, relative, tmp_path, monkeypatch):
    images, masks, given, given_masks = LAYOUTS[layout]
    for number, (image, mask) in enumerate(zip(images, masks)):
        picture(tmp_path / image, number)
        save(tmp_path / mask, shape())
    if layout.startswith("left"):
        (tmp_path / ".DS_Store").write_text("")
        (tmp_path / "images" / "Thumbs.db").write_text("")
    monkeypatch.chdir(tmp_path)
    root = Path() if relative else tmp_path
    supports = read(root / given, None if given_masks is None else str(root / given_masks))
    assert found(supports) == {"foreground": {Path(image).stem: SQUARE for image in images}}
    seen = supports.classes["foreground"][0].picture
    assert np.abs(RANDOM - seen.astype(int)).mean((1, 2, 3)).argmin() == 0  # it is the first one, in JPEG
    assert supports.values == {"foreground": 1}
    assert supports.complete


@pytest.mark.parametrize("beside", [False, True])
def test_folders_of_classes_are_classes(beside, tmp_path):
    for name in ("crack", "road"):
        if beside:
            picture(tmp_path / name / "a.jpg")
            save(tmp_path / name / "a.png", shape())
        else:
            pair(tmp_path / name)
    supports = read(tmp_path)
    assert found(supports) == {"crack": {"a": SQUARE}, "road": {"a": SQUARE}}
    assert supports.values == {"crack": 1, "road": 2}
    assert not supports.complete


def test_folders_that_a_shell_makes_of_a_star_mean_the_folder_that_they_lie_in(tmp_path):
    for name in ("crack", "road"):
        pair(tmp_path / name)
    assert found(read(list(tmp_path.iterdir()))) == found(read(tmp_path)) == found(read(tmp_path / "*"))
    assert found(read(list((tmp_path / "road").iterdir()))) == {"foreground": {"a": SQUARE}}


def test_a_single_picture_and_mask_may_be_called_as_they_like(tmp_path):
    image, mask = picture(tmp_path / "photo.jpg"), save(tmp_path / "drawn.bmp", shape())
    assert found(read(image, mask)) == {"foreground": {"photo": SQUARE}}
    assert found(read([image], [str(mask)])) == {"foreground": {"photo": SQUARE}}


def test_an_empty_mask_of_the_only_class_says_that_it_is_not_there(tmp_path):
    pair(tmp_path)
    pair(tmp_path, "b", np.zeros((30, 40), np.uint8))
    assert found(read(tmp_path)) == {"foreground": {"a": SQUARE, "b": 0}}


def test_masks_and_pictures_are_turned_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "images" / "a.jpg", exif=exif)
    save(tmp_path / "masks" / "a.png", np.rot90(shape(), -1).copy())
    support = read(tmp_path).classes["foreground"][0]
    assert support.picture.shape == (40, 30, 3)
    assert (support.mask == (np.rot90(shape(), -1) > 0)).all()


# What values of masks mean


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_of_two_values_is_foreground(value, tmp_path):
    assert found(read(pair(tmp_path, mask=shape(value)))) == {"foreground": {"a": SQUARE}}
    assert list(read(tmp_path, names={1: "crack"}).classes) == ["crack"]


def test_255_is_unknown_when_it_is_said(tmp_path):
    mask = shape(1)
    mask[:2] = 255
    support = read(pair(tmp_path, mask=mask), unknown=255).classes["foreground"][0]
    assert (support.mask == (mask == 1)).all()
    assert (support.unknown == (mask == 255)).all()
    grey_in_three = np.repeat(mask[..., None], 3, 2)
    again = read(pair(tmp_path, mask=grey_in_three), unknown=255).classes["foreground"][0]
    assert (again.mask == support.mask).all()
    assert (again.unknown == support.unknown).all()


def test_label_maps_are_read_by_value(tmp_path):
    pair(tmp_path, mask=classes(1, 2, 7))
    pair(tmp_path, "b", classes(2), 1)
    supports = read(tmp_path, labels="map")
    assert supports.values == {"1": 1, "2": 2, "7": 7}
    assert found(supports)["7"] == {"a": 92, "b": 0}
    assert supports.complete
    assert supports.classes["1"][0].picture is supports.classes["7"][0].picture
    named = read(tmp_path, names={0: "background", 7: "car", 1: "road", 2: "sky"})
    assert named.values == {"car": 7, "road": 1, "sky": 2}
    assert len(set(named.colours.values())) == 3
    without = read(tmp_path, names={1: "road", 2: "sky"}, unknown=7)
    assert without.classes["sky"][0].unknown.sum() == 92
    assert without.classes["sky"][1].unknown is None


def test_a_palette_gives_values_and_colours(tmp_path):
    image = Image.fromarray(classes(1, 2)).convert("P")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, *[0] * 759])
    supports = read(pair(tmp_path, mask=image), labels="map")
    assert supports.values == {"1": 1, "2": 2}
    assert supports.colours == {"1": (200, 0, 0), "2": (0, 200, 0)}
    by_colour = read(tmp_path, names={(0, 200, 0): "tree", (200, 0, 0): "roof"})
    assert found(by_colour) == {"tree": {"a": 92}, "roof": {"a": 92}}


def test_label_maps_in_colours_are_read_by_colour(tmp_path):
    pair(tmp_path, mask=coloured((255, 0, 0), (255, 255, 255)))
    pair(tmp_path, "b", np.zeros((30, 40), np.uint8), 1)  # nothing there, in grey
    pair(tmp_path, "c", coloured((255, 255, 255)), 2)  # grey by chance
    supports = read(tmp_path, labels="map")
    assert supports.colours == {"#ff0000": (255, 0, 0), "#ffffff": (255, 255, 255)}
    assert found(supports)["#ffffff"] == {"a": 92, "b": 0, "c": 92}
    named = read(tmp_path, names={(255, 255, 255): "barren", (255, 0, 0): "urban"})
    assert named.values == {"barren": 1, "urban": 2}
    hidden = read(tmp_path, names={(255, 0, 0): "urban"}, unknown=(255, 255, 255))
    assert hidden.classes["urban"][0].unknown.sum() == 92


def test_what_is_transparent_in_a_label_map_is_background(tmp_path):
    drawn = np.dstack([coloured((255, 0, 0), (0, 0, 255)), np.full((30, 40), 255, np.uint8)])
    drawn[..., 3][classes(1, 2) == 0] = 0
    drawn[..., :3][classes(1, 2) == 0] = (9, 200, 9)
    assert set(read(pair(tmp_path, mask=drawn), labels="map").classes) == {"#ff0000", "#0000ff"}


# Arrays


@pytest.mark.parametrize(
    "mask",
    [
        shape() > 0,
        shape(1),
        shape(255),
        shape(1).astype(np.int64),
        shape(1).astype(float),
        shape()[..., None],
        Image.fromarray(shape()),
        Image.fromarray(shape() > 0),
    ],
)
def test_masks_may_be_arrays_and_images(mask):
    supports = of_arrays([RANDOM[0]], [mask])
    assert found(supports) == {"foreground": {"image 0": SQUARE}}
    assert (supports.classes["foreground"][0].picture == RANDOM[0]).all()


@pytest.mark.parametrize(
    "image", [RANDOM[0], RANDOM[0] / 255, Image.fromarray(RANDOM[0]), (RANDOM[0] / 255).astype(np.float32)]
)
def test_pictures_may_be_arrays_images_and_paths(image, tmp_path):
    assert (of_arrays(image, shape()).classes["foreground"][0].picture == RANDOM[0]).all()
    path = picture(tmp_path / "x.png")
    mixed = of_arrays([path, image], [shape(), save(tmp_path / "m.png", shape())])
    assert [s.name for s in mixed.classes["foreground"]] == ["x", "image 1"]
    assert (mixed.classes["foreground"][0].picture == RANDOM[0]).all()


def test_arrays_of_pictures_and_masks_by_class():
    supports = of_arrays(RANDOM[:2], {"roof": np.stack([shape(), shape()]), "tree": [None, shape(1)]})
    assert found(supports) == {"roof": {"image 0": SQUARE, "image 1": SQUARE}, "tree": {"image 1": SQUARE}}
    assert supports.classes["tree"][0].picture is supports.classes["roof"][1].picture


def test_pictures_of_the_same_name_are_told_apart(tmp_path):
    for case in "ab":
        (tmp_path / case).mkdir()
        picture(tmp_path / case / "image.jpg")
        save(tmp_path / case / "image_mask.png", shape())
    expected = ["image", "b_image_jpg"]
    cases = sorted(tmp_path.glob("*/image.jpg")), sorted(tmp_path.glob("*/*_mask.png"))
    assert [one.name for one in of_arrays(*cases).classes["foreground"]] == expected
    by_glob = read(str(tmp_path / "*" / "*"))
    assert [one.name for one in by_glob.classes["foreground"]] == expected
    same = of_arrays([cases[0][0]] * 2, {"a": [shape()] * 2, "b": [shape()] * 2})
    names = [[one.name for one in of] for of in same.classes.values()]
    assert names[0] == names[1]
    assert len(set(names[0])) == 2


def test_a_mask_of_another_class_value_is_not_taken_for_an_empty_one():
    with pytest.raises(CdfssError, match="the values 2 and no foreground"):
        of_arrays(RANDOM[:2], [shape(1), shape(2)])


def test_label_maps_in_arrays_need_no_word():
    assert of_arrays(RANDOM[0], classes(1, 3)).values == {"1": 1, "3": 3}
    assert list(of_arrays(RANDOM[0], classes(1, 3), names={1: "a", 3: "b"}).classes) == ["a", "b"]
    assert of_arrays(RANDOM[0], classes(1, 3, 255), unknown=255).classes["1"][0].unknown.any()


# Queries


def test_queries_of_the_same_name_are_told_apart(tmp_path):
    for name in ("x/a.png", "y/a.png", "y/b.png", "y/b.jpg", "ö ü/c d.tif"):
        picture(tmp_path / name)
    names = {query.path.relative_to(tmp_path).as_posix(): query.name for query in queries(tmp_path)}
    assert names["x/a.png"] == "x_a"
    assert names["y/a.png"] == "y_a"
    assert names["ö ü/c d.tif"] == "c d"
    assert len(set(names.values())) == 5
    assert [query.name for query in queries([tmp_path / "y" / "a.png", tmp_path / "y/*.png"])] == ["a", "b"]


def test_outputs_of_an_earlier_run_are_no_queries(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "out" / "a.png")
    assert [query.path for query in queries(tmp_path, tmp_path / "out")] == [tmp_path / "a.png"]
    with pytest.raises(CdfssError, match=r"where all of the pictures lie.*choose another folder"):
        queries(tmp_path, tmp_path)


def test_masks_beside_images_are_no_queries(tmp_path):
    for path in ("images/a.png", "masks/a.png", "b/images/c.png", "b/masks/c.png"):
        write(tmp_path / path)
    found = [query.path.relative_to(tmp_path).as_posix() for query in queries(tmp_path)]
    assert found == ["b/images/c.png", "images/a.png"]
    assert len(queries(tmp_path / "masks")) == 1


def test_masks_of_any_earlier_run_are_no_queries(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "earlier" / "a.png")
    picture(tmp_path / "earlier" / "overlays" / "a.jpg")
    (tmp_path / "earlier" / "made.jsonl").write_text("")
    assert [query.path for query in queries(tmp_path)] == [tmp_path / "a.png"]
    assert len(queries(tmp_path / "earlier")) == 2  # when they are asked for


def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"a\xff.png")
    with open(picture(tmp_path / "b.png"), "rb") as file, open(path, "wb") as other:
        other.write(file.read())
    with pytest.raises(CdfssError, match=r"a\\xff\.png: its name is not UTF-8; rename it"):
        queries(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (1, 3)])
def test_a_picture_of_a_single_row_or_column_is_read_as_it_is(size):
    values = np.random.RandomState(0).randint(0, 256, (*size, 3)).astype(np.uint8)
    assert np.array_equal(read_query(values), values)


def test_a_query_is_read_upright_and_deep_ones_in_their_range(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    path = save(tmp_path / "a.png", RANDOM[0], exif=exif)
    assert (read_query(queries(path)[0]) == RANDOM[0][::-1, ::-1]).all()
    deep = save(tmp_path / "b.png", (shape().astype(np.uint16) * 16))
    assert set(np.unique(read_query(deep, (0, 4080)))) == {0, 255}
    with pytest.raises(CdfssError, match=r"b\.png: has whole numbers.*set value_range \(--value-range\)"):
        read_query(deep)


# Wrong inputs: what is done to a good folder (or what is given instead), and the words of the message


def a_png(**options):
    file = io.BytesIO()
    Image.fromarray(RANDOM[0]).save(file, "PNG", **options)
    return file.getvalue()


def gradient():
    return np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[None], 30, 0)


def write(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def soft_links(root):
    (root / "images" / "b.jpg").symlink_to(root / "nowhere.jpg")


WRONG = {
    "no such folder": (None, {"supports": "nowhere"}, r"nowhere: there is no such.*holds images, masks"),
    "an empty folder": (
        lambda r: (r / "e").mkdir(),
        {"supports": "e"},
        r"e: holds no pictures.*expected images/",
    ),
    "no name": (None, {"supports": ""}, r"an empty name was given"),
    "an empty list": (None, {"supports": []}, r"no picture was given"),
    "a glob of nothing": (
        None,
        {"supports": "images/*.gif"},
        r"\*\.gif: matches no picture; check the folder",
    ),
    "no such masks": (None, {"supports": "images", "masks": "labels"}, r"labels: there is no such"),
    "no folder of masks": (lambda r: os.rename(r / "masks", r / "m"), {}, r"masks: folder is missing"),
    "a picture without mask": (
        lambda r: picture(r / "images/b.jpg"),
        {},
        r"images/b\.jpg: image without a mask",
    ),
    "a mask without picture": (
        lambda r: save(r / "masks/b.png", shape()),
        {},
        r"b\.png: mask without an image",
    ),
    "a lone picture in a flat folder": (
        lambda r: picture(r / "f/b.jpg"),
        {"supports": "f"},
        r"f/b\.jpg: image without a mask; expected b\.png.*or b_mask\.png",
    ),
    "two pictures of a name": (
        lambda r: picture(r / "images/a.png"),
        {},
        r"2 images of the same name 'a'.*keep one",
    ),
    "which of two is the mask": (
        lambda r: [picture(r / "f/a.tif"), picture(r / "f/a.bmp")],
        {"supports": "f"},
        r"a\.bmp, a\.tif: which is picture.*keep a_mask\.png",
    ),
    "two masks of a picture": (
        lambda r: [picture(r / "f/a.jpg"), picture(r / "f/a_mask.png"), picture(r / "f/a.mask.png")],
        {"supports": "f"},
        r"a\.jpg, a\.mask\.png, a_mask\.png: which is picture.*keep a_mask\.png",
    ),
    "a lone mask in a flat folder": (
        lambda r: save(r / "f/b_mask.png", shape()),
        {"supports": "f"},
        r"f/b_mask\.png: mask without an image; expected b\.jpg or the like",
    ),
    "a text among pictures": (lambda r: write(r / "images/notes.txt"), {}, r"notes\.txt: is not a picture"),
    "a folder among pictures": (
        lambda r: picture(r / "images/x/b.jpg"),
        {},
        r"images/x: is a folder inside images/",
    ),
    "pictures beside the folders": (
        lambda r: picture(r / "c.jpg"),
        {},
        r"c\.jpg: lies beside images/ and masks/",
    ),
    "a link to nothing": (soft_links, {}, r"b\.jpg: is neither file nor folder, or a link to nothing"),
    "an empty file": (lambda r: write(r / "images/a.jpg"), {}, r"a\.jpg: is an empty file"),
    "a file cut short": (lambda r: write(r / "images/a.jpg", a_png()[:200]), {}, r"a\.jpg: .*truncated"),
    "no picture at all": (
        lambda r: write(r / "images/a.jpg", b"<html>"),
        {},
        r"is not a picture that can be read",
    ),
    "a film": (
        lambda r: Image.fromarray(RANDOM[0]).save(
            r / "images/a.jpg", "GIF", save_all=True, append_images=[Image.fromarray(RANDOM[1])]
        ),
        {},
        r"has 2 pictures in one file.*save the one to be used",
    ),
    "a mask of another size": (
        lambda r: save(r / "masks/a.png", shape(size=(50, 30))),
        {},
        r"is 50 x 30 pixels, its picture 40 x 30; draw it on this picture",
    ),
    "a turned mask": (
        lambda r: save(r / "masks/a.png", np.rot90(shape()).copy()),
        {},
        r"is 30 x 40 pixels, its picture 40 x 30: one of the two is turned.*EXIF",
    ),
    "no foreground": (
        lambda r: save(r / "masks/a.png", shape(0)),
        {},
        r"none of 1 masks shows class 'foreground'; check the masks",
    ),
    "nothing but foreground": (
        lambda r: save(r / "masks/a.png", shape(255) * 0 + 255),
        {},
        r"nothing but foreground; background is needed",
    ),
    "a photograph as mask": (
        lambda r: picture(r / "masks/a.png"),
        {},
        r"masks/a\.png: .*expected a mask of black",
    ),
    "classes without a word": (
        lambda r: save(r / "masks/a.png", classes(1, 2, 7)),
        {},
        r"values 0, 1, 2, 7: are these classes\? Then say --labels map",
    ),
    "colours without a word": (
        lambda r: save(r / "masks/a.png", coloured((255, 0, 0), (0, 255, 0))),
        {},
        r"colours #000000, #00ff00, #ff0000: are these classes\?",
    ),
    "255 in a label map": (
        lambda r: save(r / "masks/a.png", classes(1, 2, 255)),
        {"labels": "map"},
        r"has the value 255; say unknown=255 \(--unknown 255\).*name the classes",
    ),
    "a binary mask as label map": (None, {"labels": "map"}, r"has the value 255; .*or say labels='binary'"),
    "a value without name": (
        lambda r: save(r / "masks/a.png", classes(1, 2, 7)),
        {"names": {1: "a", 2: "b"}},
        r"has 7, which is not among the names \(1, 2\); name it, or say unknown=7",
    ),
    "a name without pixels": (
        lambda r: save(r / "masks/a.png", classes(1, 2)),
        {"names": {1: "a", 2: "b", 3: "car"}},
        r"none of 1 masks shows class 'car' \(3\)",
    ),
    "names of colours, masks of values": (
        lambda r: save(r / "masks/a.png", classes(1, 2)),
        {"names": {(255, 0, 0): "a", (0, 255, 0): "b"}},
        r"holds class values in grey, and names or other masks are in colours",
    ),
    "names of values, masks of colours": (
        lambda r: save(r / "masks/a.png", coloured((255, 0, 0), (0, 255, 0))),
        {"names": {1: "a", 2: "b"}},
        r"has colours \(.*#ff0000.*names are of values; name the colours",
    ),
    "a smoothed label map": (
        lambda r: save(r / "masks/a.png", RANDOM[0]),
        {"labels": "map"},
        r"has more than 64 colours; expected one for each class.*without loss",
    ),
    "a grey ramp as label map": (
        lambda r: save(
            r / "masks/a.png", np.arange(1200, dtype=np.uint16).astype(np.uint8).reshape(30, 40)
        ),
        {"labels": "map"},
        r"has 256 values; expected one for each class",
    ),
    "a label map of nothing": (
        lambda r: save(r / "masks/a.png", shape(0)),
        {"labels": "map"},
        r"hold nothing but background",
    ),
    "several values beside unknown": (
        lambda r: save(r / "masks/a.png", classes(1, 2, 255)),
        {"unknown": 255},
        r"has the values 1, 2 beside 255 for unknown; are these classes\?",
    ),
    "a kind of labels that is none": (
        None,
        {"labels": "rgb"},
        r"labels is 'rgb'; expected 'binary' or 'map'",
    ),
    "several names of binary masks": (
        None,
        {"labels": "binary", "names": {1: "a", 2: "b"}},
        r"names holds 2 classes; expected one name",
    ),
    "names that are a list": (None, {"names": ["a"]}, r"names is \['a'\]; expected names by value"),
    "a name for a text": (None, {"names": {"road": 1}}, r"'road' is no value from 1 to 255 and no colour"),
    "a name that is a number": (None, {"names": {1: 5}}, r"1 is called 5; expected a word"),
    "a name for two values": (None, {"names": {1: "a", 2: "a"}}, r"'a' stands for several values"),
    "a class of value 0": (
        None,
        {"names": {0: "road"}},
        r"0 is background in label maps, and is called 'road'",
    ),
    "values and colours mixed": (
        None,
        {"names": {1: "a", (1, 2, 3): "b"}},
        r"some are of values and some of colours",
    ),
    "unknown that is a class": (
        None,
        {"names": {1: "a", 2: "b"}, "unknown": 2},
        r"2 is unknown and 'b'; choose one",
    ),
    "unknown that is no value": (None, {"unknown": 300}, r"unknown is 300; expected a value from 0 to 255"),
    "white below black": (
        None,
        {"value_range": (9, 3)},
        r"value_range is \[9, 3\]; expected black below white",
    ),
    "16 bits of an unknown range": (
        lambda r: save(r / "images/a.jpg", np.arange(1200, dtype=np.uint16).reshape(30, 40), format="PNG"),
        {},
        r"whole numbers from 0 to 1199.*set value_range \(--value-range\), for example to \[0, 2047\]",
    ),
    "transparent everywhere": (
        lambda r: save(r / "images/a.jpg", np.zeros((30, 40, 4), np.uint8), format="PNG"),
        {},
        r"is transparent everywhere; save it without",
    ),
    "label maps beside class folders": (
        lambda r: pair(r / "f" / "road"),
        {"supports": "f", "labels": "map"},
        r"every class has masks of its own here.*leave them out",
    ),
    "an empty mask in a class folder": (
        lambda r: [pair(r / "f" / "road"), pair(r / "f" / "sky"), pair(r / "f" / "sky", "b", shape(0))],
        {"supports": "f"},
        r"masks of class 'sky' are without foreground: b; draw them",
    ),
    "a class folder without pictures": (
        lambda r: [picture(r / "f/sky/a.jpg"), save(r / "f/sky/a.png", shape()), (r / "f/sea").mkdir()],
        {"supports": "f"},
        r"f/sea: is a folder without pictures",
    ),
    "one thing in several files": (
        lambda r: [picture(r / f"images/{name}.jpg") for name in "bcdef"],
        {},
        r"^images/b\.jpg, images/c\.jpg, images/d\.jpg and 2 more: image without a mask$",
    ),
    "several things at once": (
        lambda r: [
            picture(r / "images/b.jpg"),
            save(r / "masks/c.png", shape()),
            write(r / "images/x.txt"),
        ],
        {},
        r"3 files cannot be used\n  .*x\.txt: is not a .*\n  .*b\.jpg: image w.*\n  .*c\.png: mask without",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_input_ends_in_a_message_that_says_what_to_do(kind, tmp_path, monkeypatch):
    spoil, given, words = WRONG[kind]
    pair(tmp_path)
    if spoil:
        spoil(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CdfssError, match=words):
        read(**{"supports": ".", **given})


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        ([], [], r"images is empty"),
        (RANDOM[0], {}, r"masks is empty"),
        (RANDOM[:2], [shape()], r"2 images and 1 masks; expected a mask for each"),
        (RANDOM[:2], {"roof": [shape()]}, r"1 masks of class 'roof'"),
        (
            np.moveaxis(RANDOM[:1], -1, 1),
            [shape()],
            r"image 0: has the shape \(3, 30, 40\), channels first",
        ),
        ([RANDOM[0].astype(int)], [shape()], r"image 0: is an array of int64.*expected uint8"),
        ([RANDOM[0] * 1.0], [shape()], r"image 0: is an array of float64 with values from 0 to 255"),
        (
            [RANDOM[0]],
            [shape() / 500],
            r"mask of image 0: has values from 0 to 0\.51; expected bool.*compare",
        ),
        ([RANDOM[0]], [shape().astype(int) - 1], r"mask of image 0: has values from -1 to 254"),
        ([RANDOM[0]], [shape(size=(9, 30))], r"mask of image 0: is 9 x 30 pixels, its picture 40 x 30"),
        ([RANDOM[0]], [classes(1, 2, 255)], r"mask of image 0: has the value 255; say unknown=255"),
        ([None], [shape()], r"image 0: is a NoneType; expected a path, an array or an image"),
        (["nowhere.png"], [shape()], r"nowhere\.png: there is no such file"),
        (7, [shape()], r"got a int; expected a path, an array"),
        ([RANDOM[0].ravel()], [shape()], r"image 0: has the shape \(3600,\); expected \(H, W, 3\)"),
    ],
)
def test_wrong_arrays_end_in_a_message_that_says_what_to_do(images, masks, words):
    with pytest.raises(CdfssError, match=words):
        of_arrays(images, masks)


# Check


def test_check_tells_what_may_not_be_meant_and_shows_what_a_model_sees(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    picture(tmp_path / "images/turned.jpg", exif=exif)
    save(tmp_path / "masks/turned.png", shape())
    save(tmp_path / "images/deep.png", RANDOM[1, ..., 0].astype(np.uint16) * 257)
    save(tmp_path / "masks/deep.png", np.roll(shape(), 3))
    pair(tmp_path, "again", np.roll(shape(), 2), 2)
    pair(tmp_path, "once", np.roll(shape(), 4), 2)
    pair(tmp_path, "other", np.roll(shape(), 4), 3)
    pair(tmp_path, "empty", shape(0), 4)
    pair(tmp_path, "tiny", shape(0), 5)
    tiny = shape(0)
    tiny[2, 8] = 255
    save(tmp_path / "masks/tiny.png", tiny)
    checked = checking.check(tmp_path, size=16)
    lines = "\n".join(checked.lines())
    assert checked.problems == []
    for words in (
        "turned.jpg: is turned as its camera says (EXIF orientation 3)",
        "deep.png: has more than 8 bits",
        "once.jpg: is the same picture as",
        "other.png: is the same mask as",
        "empty.png: has no foreground",
        "tiny: the foreground vanishes at size 16",
        "class foreground: 7 pictures",
    ):
        assert words in lines
    assert checking.write_sheet(tmp_path / "sheet.png", checked) == 7
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = np.array(sheet)
    outline = checked.supports.colours["foreground"]
    assert (np.abs(colours.astype(int) - outline).max(2) < 40).any()


def test_check_lists_all_problems(tmp_path):
    pair(tmp_path)
    for number in range(12):
        picture(tmp_path / "images" / f"lone{number}.jpg")
    save(tmp_path / "masks/a.png", shape(size=(50, 30)))
    checked = checking.check(tmp_path)
    assert len(checked.problems) == 13
    assert checked.supports is None
    with pytest.raises(CdfssError, match="mend these first"):
        checking.write_sheet(tmp_path / "sheet.png", checked)
    for number in range(12):
        save(tmp_path / "masks" / f"lone{number}.png", shape(size=(51 + number, 30)))
    with pytest.raises(
        CdfssError, match=r"(?s)13 files cannot be used.*and 3 more; see them with: cdfss check"
    ):
        read(tmp_path)
