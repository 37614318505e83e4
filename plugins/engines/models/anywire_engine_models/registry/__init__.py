"""Which models there are: a JSON file, read again when it changes, and importers that write it."""
