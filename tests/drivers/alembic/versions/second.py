"""A column with an enumeration, rows changed, and an index that is made outside of a transaction."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "second"
down_revision = "first"

binding = sa.Enum("hard", "soft", name="alembic_binding")


def upgrade() -> None:
    """Add column and index."""
    binding.create(op.get_bind())
    op.add_column("alembic_book", sa.Column("binding", binding, server_default="soft", nullable=False))
    op.alter_column("alembic_book", "title", type_=sa.Text)
    op.execute("UPDATE alembic_shelf SET name = name || '!'")
    with op.get_context().autocommit_block():
        op.create_index("alembic_title", "alembic_book", ["title"], postgresql_concurrently=True)


def downgrade() -> None:
    """Take index and column away."""
    with op.get_context().autocommit_block():
        op.drop_index("alembic_title", "alembic_book", postgresql_concurrently=True)
    op.execute("UPDATE alembic_shelf SET name = rtrim(name, '!')")
    op.alter_column("alembic_book", "title", type_=sa.String(200))
    op.drop_column("alembic_book", "binding")
    binding.drop(op.get_bind())
