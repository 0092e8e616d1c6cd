"""Leave it to `storage.ledger.fillings` to index models in lower case, so that they are found in any."""

from alembic import op

from storage.ledger.fillings import MODELS, leave

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    leave(op.get_bind(), MODELS)
