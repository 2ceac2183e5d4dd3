"""What a reader finds in a raw data set: pairs of image and mask, and what is wrong.

A reader is a function `list_pairs(root, settings) -> Listing`. It looks at names and lists only;
`cdfss.data.index` then opens every picture. Readers never drop anything in silence, but for
what operating systems leave behind.
"""

import collections
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cdfss.running import stopping
from cdfss.errors import CdfssError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}

# What programs that label pictures put after the name of a picture, in the stem of its mask.
MASK_ENDINGS = ("_mask", ".mask", "-mask", "_label", "_segmentation")

# Files and folders that Windows, macOS and network disks put beside pictures, in lower case; those
# with a dot in front (.DS_Store, ._name, .ipynb_checkpoints) need no entry.
LEFT_BEHIND = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}


AHEAD = 16  # tasks of each process whose results are waited for


@dataclass(frozen=True)
class Pair:
    """One (image, class) with its mask; paths are relative to the data set's root.

    Attributes:
        mask_value: class value in an index mask; None for a binary mask.
        class_id: from 0, unique in the data set.
    """

    image: Path
    mask: Path
    class_id: int
    class_name: str
    split: str = "test"
    mask_value: int | None = None


@dataclass(frozen=True)
class Problem:
    """A file, or the lack of one, that cannot be used."""

    path: Path
    what: str

    def __str__(self):
        path = os.fsencode(self.path).decode("utf-8", "backslashreplace")  # any bytes can be a name
        return f"{''.join(_escaped(sign) for sign in path)}: {self.what}"


@dataclass
class Listing:
    """Pairs in the protocol's order (classes in order, then paths as strings), and problems."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


def base_of(root: Path, required: tuple[str, ...], inside: tuple[str, ...]) -> Path:
    """The folder at or below `root` that holds all `required` entries.

    Args:
        inside: folder names under which an archive or a PATNet tree may hold the data set.

    Raises:
        CdfssError: says where it looked and what it expected.
    """
    for candidate in (root, *(root / name for name in inside)):
        if all((candidate / name).exists() for name in required):
            return candidate
    raise CdfssError(
        f"{root}: expected {' and '.join(required)} here"
        + (f" or in {', '.join(inside)}" if inside else "")
        + "; check data.<name>.root (docs/explanation/data.md shows the layout)"
    )


@contextmanager
def permitted():
    """Also a decorator: what the system does not let us read or write is said with what to do.

    Raises:
        CdfssError: names the file or folder.
    """
    try:
        yield
    except PermissionError as error:
        raise CdfssError(
            f"{error.filename}: permission denied; give yourself access to it and to what is in it "
            "(chmod -R u+rwX), or ask its owner to"
        ) from error


def is_left_behind(name: str) -> bool:
    """Whether an operating system puts files or folders of this name where it likes."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def contents(folder: Path, listing: Listing, root: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files in a folder, each sorted as strings; what cannot be used becomes a problem."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_left_behind(entry.name):
                continue
            path, kind = folder / entry.name, _kind(entry)
            wrong = None
            if not is_utf8(entry.name):
                wrong = "its name is not UTF-8; rename it"
            elif any(_escaped(sign) != sign for sign in entry.name):
                wrong = "its name has a line break or another sign that is not shown; rename it"
            elif kind is None:
                wrong = "is neither file nor folder, or a link to nothing; remove it"
            if wrong:
                listing.problems.append(Problem(path.relative_to(root), wrong))
            else:
                (folders if kind == "folder" else files).append(path)
    return folders, files


def _kind(entry: os.DirEntry) -> str | None:
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else None
    except PermissionError:
        raise
    except OSError:  # a link that leads to itself
        return None


def is_utf8(name: str) -> bool:
    """Whether a name can be written as text; names are bytes, and Python takes any."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(sign: str) -> str:
    """A sign that shows, or the escape of one that breaks lines or steers terminals."""
    return sign.encode("unicode_escape").decode() if sign < " " or "\x7f" <= sign < "\xa0" else sign


def pictures_in(
    folder: Path, listing: Listing, root: Path, subfolders_are_wrong: bool = False
) -> list[Path]:
    """Image files of a folder, sorted as strings; other files are problems of the listing."""
    folders, files = contents(folder, listing, root)
    if subfolders_are_wrong:
        for path in folders:
            what = f"is a folder inside {folder.name}/, where nothing is looked for; move its pictures up"
            listing.problems.append(Problem(path.relative_to(root), what))
    found = []
    for path in files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
        else:
            listing.problems.append(Problem(path.relative_to(root), "is not a picture"))
    return found


def match_masks(
    images: list[Path],
    masks: list[Path],
    listing: Listing,
    root: Path,
    stem_of: Callable[[Path], str] = lambda mask: mask.stem,
) -> list[tuple[Path, Path]]:
    """Pairs of image and mask in the order of the images.

    Lone images, lone masks, and several files of one stem become problems.

    Args:
        stem_of: gives the stem of the image that a mask belongs to.
    """
    images_of = _by_stem("images", images, lambda image: image.stem, listing, root)
    masks_of = _by_stem("masks", masks, stem_of, listing, root)
    pairs = []
    for stem, image in images_of.items():
        if image and stem not in masks_of:
            listing.problems.append(Problem(image.relative_to(root), "image without a mask"))
        elif image and masks_of[stem]:
            pairs.append((image, masks_of[stem]))
    for stem, mask in masks_of.items():
        if mask and stem not in images_of:
            listing.problems.append(Problem(mask.relative_to(root), "mask without an image"))
    return pairs


def stem_of_mask(images: list[Path]) -> Callable[[Path], str]:
    """For `match_masks`: a mask is called as its image is, or that and one of MASK_ENDINGS."""
    stems = {image.stem for image in images}

    def stem_of(mask: Path) -> str:
        shorter = (mask.stem.removesuffix(ending) for ending in MASK_ENDINGS)
        return mask.stem if mask.stem in stems else next((s for s in shorter if s in stems), mask.stem)

    return stem_of


def _by_stem(kind: str, paths: list[Path], stem_of, listing: Listing, root: Path) -> dict:
    """The path of each stem in order, or None where there are several, which is a problem."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(stem_of(path), []).append(path)
    for stem, group in groups.items():
        if len(group) > 1:
            names = ", ".join(path.relative_to(root).as_posix() for path in group)
            what = f"is one of {len(group)} {kind} of the same name {stem!r}: {names}; keep one"
            listing.problems.append(Problem(group[0].relative_to(root), what))
    return {stem: group[0] if len(group) == 1 else None for stem, group in groups.items()}


def in_processes(function: Callable, tasks: list, threads: int, name: str, rule: str = "index") -> Iterator:
    """Results of a function for every task, in order, from as many processes as `threads`.

    Few wait to be taken, so that large results may come faster than they are used.

    Args:
        name, rule: of the data set and of the job, for the message.

    Raises:
        CdfssError: when the system ended a process.
    """
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(threads, fork, stopping.begin_worker, [os.getpid()]) as pool:
        try:
            waiting = collections.deque()
            for task in tasks:
                waiting.append(pool.submit(function, task))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except KeyboardInterrupt:
            stopping.end_children()  # the pool would wait for what they have begun
            raise
        except BrokenProcessPool as error:
            refuse = f", or lower data.{name}.max_megapixels so that the largest pictures are refused"
            raise CdfssError(
                f"{name}: a process that opened pictures was killed, most likely because memory ran out; "
                f"{threads} worked at once. Run the same command again with --set-threads {rule}=1"
                f"{refuse if rule == 'index' else ''}"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # of an error, or of who takes no more


def read_lines(path: Path) -> list[str]:
    """Lines of a list or table in UTF-8, with or without its mark at the beginning.

    Raises:
        CdfssError: names the file and the line that is no such text.
    """
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        wrong = "a byte of value 0" if b"\0" in line else None
        try:
            line.decode()
        except UnicodeDecodeError as error:
            wrong = f"the byte 0x{line[error.start]:02x}"
        if wrong:
            raise CdfssError(
                f"{path}: line {number} has {wrong}; expected text in UTF-8. Save the file as such, or get "
                "it again"
            )
    return [line.decode() for line in lines]


def stays_inside(name: str) -> bool:
    """Whether a name in a list can only mean something inside the folder where it is looked for."""
    path = PurePosixPath(name)
    parts = path.parts
    fits = all(len(os.fsencode(part)) < 240 for part in parts)  # 255 bytes with an ending
    return bool(parts) and fits and ".." not in parts and not path.is_absolute()


def split_folder(settings: dict, base: Path, required: str, places: tuple[str, ...]) -> Path:
    """The folder that holds a data set's split lists.

    Args:
        required: a file that must be in it.
        places: where to look, relative to `base`, when the setting is empty.

    Raises:
        CdfssError: says where it looked.
    """
    given = settings.get("splits")
    candidates = [Path(given)] if given else [base / place for place in places]
    for candidate in candidates:
        if (candidate / required).is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise CdfssError(
        f"data.{settings['name']}.splits: no {required} in {looked}; set it to the folder with the "
        "split lists (docs/explanation/data.md says where they are published)"
    )
