"""The tables of the three databases, one module a database."""
