"""The configuration of a run: on top of all rooms, whose settings it knows; none of them knows it."""

from cdfss.configuration.reading import check_file, load, parse, with_default

__all__ = ["check_file", "load", "parse", "with_default"]
