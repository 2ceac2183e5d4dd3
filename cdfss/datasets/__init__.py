"""Data sets: one file per raw format, all ending in the index contract."""
