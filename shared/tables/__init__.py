"""The tables of the three databases, one module per database."""
