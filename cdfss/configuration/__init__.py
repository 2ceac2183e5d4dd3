"""The configuration of a run: on top of all rooms, whose settings it knows; none of them knows it."""

from cdfss.configuration.reading import DEFAULT, check_file, load, parse, with_default

__all__ = ["DEFAULT", "check_file", "load", "parse", "with_default"]
