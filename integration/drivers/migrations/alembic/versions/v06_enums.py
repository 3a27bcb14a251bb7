"""Enums: values added and renamed, a column that becomes one, a type that takes another's place."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "v06", "v05"


def upgrade():
    with op.get_context().autocommit_block():
        op.execute("ALTER TYPE status ADD VALUE 'sent' AFTER 'paid'")
        op.execute("ALTER TYPE status ADD VALUE IF NOT EXISTS 'lost' BEFORE 'new'")
    op.execute("ALTER TYPE status RENAME VALUE 'paid' TO 'settled'")
    op.execute("UPDATE orders SET status = 'sent' WHERE total > 900")
    kind = sa.Enum("y", "x", name="kind")
    kind.create(op.get_bind())
    op.alter_column("items", "name", type_=kind, existing_type=sa.String(40), postgresql_using="name::kind")
    op.alter_column("items", "name", server_default="x")


def downgrade():
    op.alter_column("items", "name", server_default=None)
    op.alter_column("items", "name", type_=sa.String(40), existing_type=sa.Enum(name="kind"))
    sa.Enum(name="kind").drop(op.get_bind())
    # A value can't be taken away: another type with the others takes its place.
    op.execute("ALTER TYPE status RENAME TO status_before")
    op.execute("CREATE TYPE status AS ENUM ('new', 'paid')")
    op.execute("ALTER TABLE orders ALTER status DROP DEFAULT")
    op.execute(
        "ALTER TABLE orders ALTER status TYPE status"
        " USING (CASE status::text WHEN 'new' THEN 'new' ELSE 'paid' END)::status"
    )
    op.execute("DROP TYPE status_before")
