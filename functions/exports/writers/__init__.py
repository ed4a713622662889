"""One writer per file type. Writers depend on the types of columns, never on the source."""
