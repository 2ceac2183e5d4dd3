"""Chest X-ray: lungs of the Montgomery and Shenzhen sets, one class.

Layout: `CXR_png/<id>.png` with `masks/<id>_mask.png` (Shenzhen) or `masks/<id>.png` (Montgomery).
"""

from pathlib import Path

from cdfss.data.listing import Listing, Pair, base_of, match_masks, permitted, pictures_in

INSIDE = ("LungSegmentation", "Lung Segmentation", "data/Lung Segmentation")


@permitted()
def list_pairs(root: Path, settings: dict) -> Listing:
    """In the order of the mask files, as PATNet lists them.

    The set has images without a mask (95 of the Shenzhen set were never segmented); they are
    counted in the notes, not treated as damage, since the benchmark starts from the masks.
    """
    listing = Listing()
    base = base_of(root, ("CXR_png", "masks"), INSIDE)
    images = pictures_in(base / "CXR_png", listing, root)
    masks = pictures_in(base / "masks", listing, root)
    stems = {_image_stem(mask) for mask in masks}
    labelled = [image for image in images if image.stem in stems]
    listing.notes["images_never_segmented"] = len(images) - len(labelled)
    pairs = match_masks(labelled, masks, listing, root, _image_stem)
    for image, mask in sorted(pairs, key=lambda pair: str(pair[1])):
        listing.pairs.append(Pair(image.relative_to(root), mask.relative_to(root), 0, "lung"))
    return listing


def _image_stem(mask: Path) -> str:
    return mask.stem.removesuffix("_mask")
