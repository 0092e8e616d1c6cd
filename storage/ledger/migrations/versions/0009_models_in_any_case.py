"""Index models in lower case, so that they are found in any."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    in_c = "" if op.get_bind().dialect.name == "sqlite" else ' COLLATE "C"'
    other = f"substr(term, 1, 6) = 'model:' AND term <> lower(term{in_c})"
    op.execute(
        f"INSERT INTO terms (term, number) SELECT lower(term{in_c}), number FROM terms "  # noqa: S608 - ours
        f"WHERE {other} ON CONFLICT DO NOTHING"
    )
    op.execute(f"DELETE FROM terms WHERE {other}")  # noqa: S608 - ours
