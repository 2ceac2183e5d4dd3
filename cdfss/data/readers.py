"""The raw formats by name: which files of a data set belong together, without opening a picture."""

from pathlib import Path

from cdfss.data.formats import chestxray, deepglobe, folder, fss1000, isic2018, pascal
from cdfss.data.listing import Pair
from cdfss.data.places import is_there, marker, root_of
from cdfss.errors import CdfssError

READERS = {
    "pascal": pascal,
    "fss1000": fss1000,
    "deepglobe": deepglobe,
    "isic2018": isic2018,
    "chestxray": chestxray,
    "folder": folder,
}


def base_of(settings: dict) -> Path | None:
    """The folder whose files can be read as they lie, or None where pieces have to be made first.

    Raises:
        CdfssError: when the folder or its layout is not there.
    """
    root = root_of(settings)
    if not is_there(settings):
        if settings["root"] is None:
            raise CdfssError(
                f"data.{settings['name']}: {root} is gone, although {marker(settings)} says that all of it "
                "is there. Delete that file and run the same command again"
            )
        raise CdfssError(f"data.{settings['name']}.root: {root} is not a folder")
    ready = getattr(READERS[settings["format"]], "ready", None)
    return ready(root) if ready else root


def raw_files(settings: dict) -> list[Path]:
    """Files that pieces of a format that needs them are made from.

    Raises:
        CdfssError: as `base_of`.
    """
    return READERS[settings["format"]].raw_files(root_of(settings), settings)


def pairs_of(settings: dict) -> list[Pair] | None:
    """Pairs of the settings' split by names and lists alone; None where pieces have to be made first.

    Args:
        settings: `Jobs.index_settings`; without a split the pairs of all.

    Raises:
        CdfssError: as `base_of`.
    """
    base = base_of(settings)
    if base is None:
        return None
    pairs, split = READERS[settings["format"]].list_pairs(base, settings).pairs, settings.get("split")
    return [pair for pair in pairs if split in (None, pair.split)]
