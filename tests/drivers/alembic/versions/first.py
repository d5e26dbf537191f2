"""Two tables, with rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "first"
down_revision = None


def upgrade() -> None:
    """Make the tables and fill one of them."""
    shelves = op.create_table(
        "alembic_shelf",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
    )
    op.bulk_insert(shelves, [{"name": f"shelf {n}"} for n in range(20)])
    op.create_table(
        "alembic_book",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("shelf_id", sa.Integer, sa.ForeignKey("alembic_shelf.id"), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("alembic_book")
    op.drop_table("alembic_shelf")
