"""Imports: reading and validating a file, and the steps and states it goes through."""
