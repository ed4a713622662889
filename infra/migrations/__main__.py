"""`python -m infra.migrations service|product`: upgrades a database to the newest revision.

The settings of the functions name the database: SERVICE_DATABASE_URL, or SERVICE_DATABASE_INSTANCE with the other
settings of that instance; for the product database they start with PRODUCT_.
"""

from __future__ import annotations

import argparse

from infra import migrations
from shared import clients

DATABASES = {"service": clients.service_database, "product": clients.product_database}


def main() -> None:
    """Migrates the database that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m infra.migrations", description="Migrates a database.")
    parser.add_argument("tree", choices=sorted(DATABASES), help="which database")
    tree = parser.parse_args().tree
    with DATABASES[tree]().begin() as conn:
        migrations.upgrade(tree, conn)
    print(f"The {tree} database is at its newest revision.")


if __name__ == "__main__":
    main()
