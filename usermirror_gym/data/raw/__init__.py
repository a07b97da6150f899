"""Raw files: fetched, opened, parsed."""
