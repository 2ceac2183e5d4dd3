"""From a few labelled pictures to masks of others: `fit` once, `predict` many."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cdfss.backbones.facts import facts_of, how_to_get
from cdfss.errors import CdfssError
from cdfss.methods import hosts, known, own
from cdfss.methods.contract import Given, Shared
from cdfss.methods.modules.settings import RATE, STEPS
from cdfss.running.files import file_hash
from cdfss.running.provenance import made_with
from cdfss.segmentation import BACKBONE, METHOD, SIZE, saved, tiles
from cdfss.segmentation.fitting import Fitted, at_size, device_of, resized, usable
from cdfss.segmentation.labels import Colour
from cdfss.segmentation.sources import Picture, name_of
from cdfss.segmentation.supports import Query, Support, Supports, of_arrays, read_query

if TYPE_CHECKING:
    from cdfss.segmentation import trust

LEAST_SIZE = 32  # pixels; the deepest maps of a pyramid are then one position


def fit(
    images: Picture | Sequence[Picture],
    masks: Picture | Sequence[Picture] | Mapping[str, Picture | Sequence[Picture]],
    *,
    method: str = METHOD,
    backbone: str = BACKBONE,
    settings: Mapping[str, Any] | None = None,
    size: int = SIZE,
    checkpoint: str | Path | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    names: Mapping[int | Colour, str] | None = None,
    unknown: int | Colour | None = None,
    value_range: tuple[float, float] | None = None,
    tile: int | None = None,
) -> "Segmenter":
    """Learn to segment from a few labelled pictures.

    Args:
        images: k labelled pictures: paths, arrays (H, W, 3) uint8, or Pillow's images.
        masks: of each picture, of its height and width, as `supports.of_arrays` takes them: paths, arrays
            (H, W) or Pillow's images; or such lists by name of class.
        names, unknown, value_range: of classes, the value of unlabelled pixels, and the values of black and
            white in pictures of more than 8 bits, new ones too, as `supports.of_arrays`.
        method, others: as `fit_supports`.

    Raises:
        CdfssError: says what is wrong with which picture, mask or argument, and what to do.
    """
    return fit_supports(
        of_arrays(images, masks, names=names, unknown=unknown, value_range=value_range),
        method=method,
        backbone=backbone,
        settings=settings,
        size=size,
        checkpoint=checkpoint,
        weights=weights,
        device=device,
        seed=seed,
        tile=tile,
    )


def fit_supports(
    supports: Supports,
    *,
    method: str = METHOD,
    backbone: str = BACKBONE,
    settings: Mapping[str, Any] | None = None,
    size: int = SIZE,
    checkpoint: str | Path | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    tile: int | None = None,
) -> "Segmenter":
    """Learn to segment from labelled pictures of one or several classes.

    Args:
        method: a name of `cdfss.methods.known`, or one's own "folder/file.py:Class". "ridge" needs neither
            training nor download; "auto" takes the best by leave-one-out (`segmentation.trust`).
        backbone: frozen network, a name of `cdfss.backbones.facts.BACKBONES`.
        settings: of the method, plain values.
        size: S, pixels: methods see pictures, or their tiles, S x S.
        checkpoint: source-trained model, for methods that need one.
        weights: published file of the backbone; EfficientNet-Lite0's are installed.
        device: "auto", "cpu" or "cuda".
        seed: of everything that is drawn.
        tile: side of the tiles, pixels, in which pictures are seen whose longer side is more than 1.5 times
            that, supports included. By default queries alone, in tiles as large as the supports are (median
            of their longer sides).

    Raises:
        CdfssError: says what is wrong with which support or argument, and what to do.
    """
    if not supports.classes or not all(supports.classes.values()):
        raise CdfssError("fit: there are no supports; give at least one labelled picture of each class")
    _check_size(size)
    if tile is not None and not (isinstance(tile, int) and tile >= LEAST_SIZE):
        raise CdfssError(f"tile is {tile!r}; expected a whole number of pixels, at least {LEAST_SIZE}")
    sides = [max(one.picture.shape[:2]) for of in supports.classes.values() for one in of]
    seen, remarks = supports, list[str]()
    if tile is not None:
        seen, remarks = tiles.cut(supports, tile)
    if method == "auto":
        if settings:
            raise CdfssError("settings are those of one method, and method 'auto' chooses; name the method")
        from cdfss.segmentation import trust

        best, remark = trust.choose(
            seen,
            backbone=backbone,
            size=size,
            checkpoint=checkpoint and str(checkpoint),
            weights=weights and str(weights),
            device=device,
            seed=seed,
        )
        method, settings = best.method, best.settings
        if known.find(method).needs != "source":
            checkpoint = None  # which served candidates that were not the best
        remarks.append(remark)
    kind = known.find(method)
    plain = _plain(method, settings or {})
    files = _files(method, backbone, checkpoint, weights)
    seen, said = usable(at_size(seen, size), kind, method)
    how = {
        "method": method,
        "settings": plain,
        "codes": known.codes_of(method, plain),
        **files,
        "size": size,
        "seed": seed,
        "tile": int(np.median(sides)) if tile is None else tile,
        "value_range": supports.value_range,
        "remarks": remarks + said,
        "supports": [
            {"class": label, "name": one.name, "sha256": _hash(one)}
            for label, of in supports.classes.items()
            for one in of
        ],
        "made_with": made_with("torch", "numpy", "pillow"),
    }
    return Segmenter(seen, how, device)


def load(
    file: str | Path,
    device: str = "auto",
    *,
    checkpoint: str | Path | None = None,
    weights: str | Path | None = None,
    own_code: bool = False,
) -> "Segmenter":
    """What `Segmenter.save` wrote, ready to predict, with the same results; nothing is tuned again.

    Args:
        device: as `fit_supports`.
        checkpoint, weights: files that it was fitted with, where they are no longer where they were. They
            are compared by their hash.
        own_code: whether it may run a method or module of one's own, "folder/file.py:Class", that the file
            names. Else such a file is refused: reading it would run code.

    Raises:
        CdfssError: for a file that is damaged, of another kind, or newer than this version; for a
            checkpoint or weights that are not there or are others.
    """
    supports, how, learnt = saved.read(file)
    if not own_code and (
        code := [name for name in _texts(how["method"], how["settings"]) if own.is_own(name)]
    ):
        raise CdfssError(
            f"{file} was fitted with {code[0]}, which is no code of cdfss, and reading it would run that; "
            "if you trust it, load with own_code=True"
        )
    for what, path in (("checkpoint", checkpoint), ("weights", weights)):
        how[what] = _found_again(file, what, how[what], path)
    now = known.codes_of(how["method"], how["settings"])
    if how["codes"] != now:
        how["remarks"] = [
            *how["remarks"],
            f"{file} was fitted by cdfss {how['made_with']['cdfss']}, whose code of {how['method']} was "
            "another: predictions may differ from those made then",
        ]
    return Segmenter(supports, how, device, learnt)


class Segmenter:
    """What was learnt from labelled pictures: it segments others, of any size.

    Made by `fit`, `fit_supports` and `load`.

    Attributes:
        classes: names, in order.
        values: of each class in label maps, 1 to 255; 0 is background.
        colours: of each class, RGB.
        how: what made it: method, settings, codes, backbone, checkpoint, weights, size, seed, tile, value
            range, remarks (sentences for people), hashes of the supports, versions.
        supports: as the method sees them, (S, S).
    """

    def __init__(
        self,
        supports: Supports,
        how: dict[str, Any],
        device: str = "auto",
        learnt: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ):
        self.supports, self.how, self._device = supports, how, device
        self.classes = tuple(supports.classes)
        self.values, self.colours = supports.values, supports.colours
        given = _given(how, device, several=len(self.classes) > 1)
        self._fitted = [
            Fitted(how["method"], how["settings"], given, of, (learnt or {}).get(label))
            for label, of in supports.classes.items()
        ]

    def read(self, picture: Picture | Query) -> np.ndarray:
        """A picture as the supports were read, upright and at its own size, (H, W, 3) uint8.

        Raises:
            CdfssError: says in one line what is wrong with it.
        """
        return read_query(picture, self.how["value_range"])

    def probabilities(self, picture: Picture) -> np.ndarray:
        """Of each class at each pixel of a picture, at its own size.

        Args:
            picture: a path, an array (H, W, 3) uint8, or an image of Pillow's.

        Returns:
            (C, H, W) float32 in 0..1, in the order of `classes`. Each class is told from all else by
            itself: they need not add up to 1.

        Raises:
            CdfssError: for a picture that cannot be read, and when there is too little memory.
        """
        whole, done = self.read(picture), 0
        found = np.empty((len(self.classes), *whole.shape[:2]), np.float32)
        for strip in self._strips(whole):
            found[:, done : done + strip.shape[1]] = strip
            done += strip.shape[1]
        return found

    def predict(self, picture: Picture) -> np.ndarray:
        """A label map of a picture at its own size, (H, W) uint8: `values` of classes, 0 for background.

        Args, raises: as `probabilities`.
        """
        return np.concatenate([self.labels(strip) for strip in self._strips(self.read(picture))])

    def labels(self, probabilities: np.ndarray) -> np.ndarray:
        """(C, H, W) -> label map (H, W) uint8: the most probable class from 0.5 on, else background."""
        values = np.array([self.values[label] for label in self.classes], np.uint8)
        return np.where(probabilities.max(0) >= 0.5, values[probabilities.argmax(0)], 0).astype(np.uint8)

    def save(self, file: str | Path) -> None:
        """Write all that `load` needs to predict the same, but for a backbone's weights and a checkpoint.

        The file holds the supports at the size that methods see, 3 S^2 bytes each, and what was tuned:
        whoever gets it can see the pictures. `load` runs no code of it.

        Raises:
            CdfssError: when it cannot be written.
        """
        learnt = {label: one.learnt() for label, one in zip(self.classes, self._fitted)}
        saved.write(file, self.supports, self.how, learnt)

    def report(
        self,
        queries: Iterable[Picture | Query] = (),
        candidates: "Sequence[trust.Candidate] | None" = None,
    ) -> "trust.Report":
        """How far to trust it, told from the supports and pictures without masks (`segmentation.trust`).

        Args:
            queries: pictures to segment; the report says how firm predictions of each are.
            candidates: methods to compare with; by default those of `segmentation.trust`.

        Raises:
            CdfssError: where no candidate can be fitted to a part of the supports.
        """
        from cdfss.segmentation import trust

        named = (
            (one.name if isinstance(one, Query) else name_of(one, number), self.read(one))
            for number, one in enumerate(queries)
        )
        return trust.report(
            self.supports,
            self.how,
            named,
            candidates,
            predict=self.probabilities,
            device=self._device,
        )

    def _strips(self, whole: np.ndarray) -> Iterator[np.ndarray]:
        """Probabilities of parts of a picture (H, W, 3) from top to bottom, (C, rows, W) each."""
        shape, tile = whole.shape[:2], self.how["tile"]
        if tiles.is_large(shape, tile):
            yield from tiles.blended(shape, tile, lambda rows, columns: self._seen(whole[rows, columns]))
        else:
            yield self._seen(whole)

    def _seen(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, seen at S x S -> (C, H, W) float32 in 0..1."""
        seen = resized(picture, self.how["size"])[None]
        return np.stack([_to_shape(one.probabilities(seen)[0], picture.shape[:2]) for one in self._fitted])


def _to_shape(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(S, S) float32 -> (H, W), bilinearly; averaged where that is smaller."""
    from PIL import Image

    if values.shape == tuple(shape):
        return values
    image = Image.fromarray(values).resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.array(image).clip(0, 1)


def _check_size(size: int) -> None:
    if not (isinstance(size, int) and size >= LEAST_SIZE):
        raise CdfssError(f"size is {size!r}; expected a whole number of pixels, at least {LEAST_SIZE}")


def _plain(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a method as plain values, those that are not given by their defaults."""
    checked = own.checked_settings(method, "method", known.find(method).Settings, dict(settings))
    rates = [key for key, value in getattr(checked, "rates", {}).items() if isinstance(value, dict)]
    if rates:
        raise CdfssError(f"method {method!r}: {rates[0]} has a rate for each domain; give one number")
    return checked.of_domain("", {"steps": STEPS, "learning_rate": RATE})


def _files(
    method: str, backbone: str, checkpoint: str | Path | None, weights: str | Path | None
) -> dict[str, Any]:
    """Backbone, checkpoint and weights that a method needs, each file with its hash.

    Raises:
        CdfssError: for a file that is needed and not given or not there, or given and not needed.
    """
    kind = known.find(method)
    if checkpoint is not None and kind.needs != "source":
        raise CdfssError(
            f"method {method!r} takes no checkpoint; leave it out, or take a method that does (hsnet, "
            "patnet, fptrans)"
        )
    if kind.needs in ("nothing", "device"):
        return {"backbone": None, "checkpoint": None, "weights": None}
    facts = facts_of(backbone)
    if kind.needs == "source":
        host = hosts.HOSTS[kind.host]
        if reason := host.why_not(backbone):
            raise CdfssError(f"method {method!r}: {reason}")
        if checkpoint is None:
            raise CdfssError(
                f"method {method!r} needs a source-trained model of {host.title}: give its file as "
                "checkpoint, with the backbone that it was trained with"
            )
    if facts.weights is not None and weights is None:
        raise CdfssError(
            f"backbone {backbone!r} needs its published weights: {how_to_get(backbone, 'a file')}, and "
            "give that as weights"
        )
    return {
        "backbone": backbone,
        "checkpoint": _file("checkpoint", checkpoint),
        "weights": _file("weights", None if facts.weights is None else weights),
    }


def _file(what: str, path: str | Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    try:
        return {"path": str(Path(path).absolute()), "sha256": file_hash(path)}
    except OSError as error:
        raise CdfssError(f"{what}: {path} cannot be read ({error.strerror}); give its file") from error


def _given(how: dict[str, Any], device: str, several: bool) -> Given:
    """What the method is given."""

    def path(what):
        return how[what] and how[what]["path"]

    return Given(
        how["size"],
        how["seed"],
        None if known.find(how["method"]).needs == "nothing" else device_of(device),
        how["backbone"],
        path("weights"),
        path("checkpoint"),
        shared=Shared(several),
    )


def _texts(*values: Any) -> Iterator[str]:
    """All texts in plain values, keys included."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from _texts(*value.keys(), *value.values())
        elif isinstance(value, (list, tuple)):
            yield from _texts(*value)


def _found_again(
    file: str | Path, what: str, recorded: dict[str, str] | None, path: str | Path | None
) -> dict[str, str] | None:
    """A file that a segmenter was fitted with, where it is now."""
    if recorded is None:
        if path is not None:
            raise CdfssError(f"{file} was fitted without {what}; leave {path} out")
        return None
    there = Path(recorded["path"] if path is None else path)
    if not there.is_file():
        raise CdfssError(
            f"{file} was fitted with the {what} {recorded['path']}, and {there} is not there; give its "
            f"file as {what} (sha256 {recorded['sha256']})"
        )
    found = _file(what, there)
    if found and found["sha256"] != recorded["sha256"]:
        raise CdfssError(
            f"{file} was fitted with another {what} than {there}: expected the sha256 "
            f"{recorded['sha256']}, found {found['sha256']}; give the one that it was fitted with, or fit "
            "anew"
        )
    return found


def _hash(one: Support) -> str:
    """Of a support's picture and labels, 64 hexadecimal digits."""
    found = hashlib.sha256(f"{one.picture.shape} ".encode())
    for values in (one.picture, one.mask, one.unknown):
        found.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
