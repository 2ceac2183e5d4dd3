"""Chest X-ray: lungs of the Montgomery and Shenzhen sets, one class.

Layout: `CXR_png/<id>.png` with `masks/<id>_mask.png` (Shenzhen) or `masks/<id>.png` (Montgomery).
"""

from pathlib import Path

from cdfss.datasets.listing import Listing, Pair, base_of, match_masks, pictures_in

INSIDE = ("LungSegmentation", "Lung Segmentation", "data/Lung Segmentation")


def list_pairs(root: Path, settings: dict) -> Listing:
    """In the order of the mask files, as PATNet lists them.

    The set has images without a mask (95 of the Shenzhen set were never segmented); they are
    counted in the notes, not treated as damage, since the benchmark starts from the masks.
    """
    listing = Listing()
    base = base_of(root, ("CXR_png", "masks"), INSIDE)
    images = pictures_in(base / "CXR_png", listing, root)
    masks = {p.stem.removesuffix("_mask"): p for p in pictures_in(base / "masks", listing, root)}
    labelled = [image for image in images if image.stem in masks]
    listing.notes["images_never_segmented"] = len(images) - len(labelled)
    pairs = match_masks(labelled, masks, listing, root)
    for image, mask in sorted(pairs, key=lambda pair: str(pair[1])):
        listing.pairs.append(Pair(image.relative_to(root), mask.relative_to(root), 0, "lung"))
    return listing
