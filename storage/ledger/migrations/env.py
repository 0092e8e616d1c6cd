"""Run the migrations, as Alembic's entry, on the connection that `storage.ledger.database` passes."""

from alembic import context

from storage.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
