"""The files of exports: a writer a file type. A writer knows the types of columns, never the source they come from."""
