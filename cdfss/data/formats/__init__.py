"""One reader for each raw format."""
