"""Alembic runs this module for both trees, within the transaction of the connection that infra.migrations passes."""

from alembic import context

from infra.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
