"""Exports: the sources, the files made of them, and each export as a job."""
