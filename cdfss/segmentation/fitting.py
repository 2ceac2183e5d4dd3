"""Methods that are fitted to the supports of each class, for pictures one after the other."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cdfss.data.pictures import nearest
from cdfss.errors import CdfssError
from cdfss.methods import calling, own
from cdfss.methods.contract import Given, Method, Prediction
from cdfss.running import devices
from cdfss.segmentation.supports import Support, Supports

if TYPE_CHECKING:
    import torch


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3), bilinearly and without its aspect, as in every evaluation."""
    from PIL import Image

    if picture.shape[:2] == (size, size):
        return picture
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


def at_size(supports: Supports, size: int) -> Supports:
    """Supports as methods see them, (size, size); a picture of several classes is one array.

    Raises:
        CdfssError: for a mask whose foreground is too small to be seen.
    """
    pictures: dict[bytes, np.ndarray] = {}

    def seen(label: str, one: Support) -> Support:
        picture = resized(one.picture, size)
        picture = pictures.setdefault(picture.tobytes(), picture)
        mask = nearest(one.mask, size)
        if one.mask.any() and not mask.any():
            raise CdfssError(
                f"support {one.name}: the foreground of {label!r} ({int(one.mask.sum())} of "
                f"{one.mask.shape[1]} x {one.mask.shape[0]} pixels) vanishes at size {size}; take a larger "
                "size, or tile with less than the picture's side"
            )
        unknown = None if one.unknown is None else nearest(one.unknown, size)
        return Support(one.name, picture, mask, unknown)

    classes = {label: [seen(label, one) for one in of] for label, of in supports.classes.items()}
    return replace(supports, classes=classes)


def helps(kind: type[Method], support: Support) -> bool:
    """Whether a method learns from a support: one that shows the class, or any."""
    return kind.negatives or bool(support.mask.any())


def usable(supports: Supports, kind: type[Method], name: str) -> tuple[Supports, list[str]]:
    """The supports that a method learns from, and what people should know of those that it does not.

    Raises:
        CdfssError: for a class without foreground or background, and fewer supports than the method needs.
    """
    classes, remarks = {}, []
    for label, of in supports.classes.items():
        helpful = [one for one in of if helps(kind, one)]
        if not any(one.mask.any() for one in of):
            raise CdfssError(
                f"class {label!r}: none of its {len(of)} supports shows it, their masks are empty; label "
                "at least one picture of it, or leave the class out"
            )
        if kind.looks and all(_filled(one) for one in helpful):
            raise CdfssError(
                f"class {label!r}: its masks ({', '.join(one.name for one in helpful)}) are foreground "
                "everywhere, and nothing shows what it is not; check them (0 is background), or add a "
                "picture with background"
            )
        if len(helpful) < kind.least_supports:
            raise CdfssError(
                f"class {label!r}: method {name!r} needs at least {kind.least_supports} supports, and "
                f"there are {len(helpful)} that show it"
            )
        if left := [one.name for one in of if not helps(kind, one)]:
            remarks.append(
                f"{label}: {name} learns nothing from pictures without it, and leaves out {', '.join(left)}"
            )
        if not kind.takes_unknown and any(o.unknown is not None and o.unknown.any() for o in helpful):
            remarks.append(f"{label}: {name} takes unknown pixels as background")
        classes[label] = helpful
    return replace(supports, classes=classes), remarks


def _filled(one: Support) -> bool:
    """Whether a mask has no background."""
    return bool((one.mask if one.unknown is None else one.mask | one.unknown).all())


class Fitted:
    """A method that is fitted to the supports of one class.

    Args:
        name: of the method.
        settings: as plain values.
        supports: of the class, at the size of `given`.
        learnt: what `Method.learnt` gave before; the method takes it up again instead of learning.
    """

    def __init__(
        self,
        name: str,
        settings: dict,
        given: Given,
        supports: list[Support],
        learnt: Mapping[str, np.ndarray] | None = None,
    ):
        self.name, self.method = name, calling.build(name, settings, given)
        if calling.is_oracle(self.method):
            raise CdfssError(
                f"method {name!r} with these settings is an oracle, which is shown the queries' masks; "
                "take one without"
            )
        pictures = self._batch(np.stack([one.picture for one in supports]))
        masks = self._batch(np.stack([one.mask for one in supports]))
        more = {}
        if self.method.takes_unknown and any(one.unknown is not None for one in supports):
            nothing = np.zeros(supports[0].mask.shape, bool)
            unknown = [nothing if one.unknown is None else one.unknown for one in supports]
            more = {"unknown": self._batch(np.stack(unknown))}
        with self._running():
            if learnt:
                self.method.recall(pictures, masks, dict(learnt))
            else:
                self.method.fit(pictures, masks, **more)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Of foreground in n pictures (n, S, S, 3) uint8: (n, S, S) float32 in 0..1.

        Raises:
            BrokenContract: when a user's own method fails, or returns something else.
        """
        queries = self._batch(pictures)
        with self._running():
            prediction: Prediction = self.method.predict(queries)
        found = calling.checked(self.name, prediction, queries.shape[:-1]).probabilities
        return found.reshape(pictures.shape[:-1]).clip(0, 1)

    def learnt(self) -> dict[str, np.ndarray]:
        """`Method.learnt`."""
        with self._running():
            return self.method.learnt()

    def _batch(self, values: np.ndarray) -> np.ndarray:
        return values[None] if self.method.batched else values

    @contextmanager
    def _running(self):
        """Where the method computes: in float32, and its failures in words."""
        device = self.method.given.device
        try:
            with own.told(self.name, "method", calling.BrokenContract), _float32(device):
                yield
        except (RuntimeError, MemoryError) as error:
            if not devices.ran_out_of_memory(error):
                raise
            raise CdfssError(
                f"method {self.name!r} ran out of memory at size {self.method.given.image_size} (device "
                f"{device}: {str(error).splitlines()[0][:200]}); take a smaller size, fewer supports, or a "
                "device with more memory"
            ) from None


def device_of(device: str) -> "torch.device":
    """The device that "auto", "cpu" or "cuda" stands for on this machine.

    Raises:
        CdfssError: for another name, and where the installed torch cannot use it.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise CdfssError(f"device is {device!r}; expected 'auto', 'cpu' or 'cuda'")
    wanted = devices.wanted(device)
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise CdfssError(
            f"device: this machine has a GPU, but the installed torch ({torch.__version__}) cannot use it; "
            "install a torch that fits the driver, or take device 'cpu'"
        )
    return torch.device(wanted)


@contextmanager
def _float32(device):
    if device is None:
        yield
        return
    from cdfss.running.precision import precision

    with precision("float32", device):
        yield
