"""Columns: added, renamed, of another type, gone; defaults and NOT NULL."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "v02", "v01"


def upgrade():
    op.add_column("tenants", sa.Column("email", sa.String(80)))
    op.add_column("tenants", sa.Column("active", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("orders", sa.Column("made", sa.DateTime(timezone=True), server_default="2026-01-01 00:00+00"))
    op.add_column("orders", sa.Column("twice", sa.Integer, sa.Computed("total * 2", persisted=True)))
    op.add_column("plans", sa.Column("price", sa.Numeric(8, 2), nullable=False, server_default="1.50"))
    op.alter_column("tenants", "name", new_column_name="title")
    op.alter_column("orders", "code", new_column_name="number", existing_type=sa.String(8))
    op.alter_column("tenants", "title", type_=sa.Text, existing_type=sa.String(20))
    op.alter_column("items", "name", type_=sa.String(40), existing_type=sa.Text, existing_nullable=True)
    op.alter_column("items", "line", type_=sa.Integer, existing_type=sa.SmallInteger)
    op.alter_column("plans", "name", type_=sa.String(60), nullable=False, existing_type=sa.Text)
    op.alter_column("tenants", "old", type_=sa.Integer, existing_type=sa.Text, postgresql_using="old::integer")
    op.drop_column("notes", "kind")
    op.alter_column("orders", "at", server_default=sa.text("'2026-02-03'"), existing_type=sa.Date)
    op.execute("UPDATE orders SET at = DEFAULT WHERE at IS NULL")
    op.alter_column("orders", "at", nullable=False, existing_type=sa.Date)
    op.alter_column("orders", "status", server_default=None)
    op.alter_column("tenants", "plan", nullable=False, comment="what is paid for", existing_type=sa.Integer)
    op.create_table_comment("orders", "what was ordered")


def downgrade():
    op.drop_table_comment("orders")
    op.alter_column("tenants", "plan", nullable=True, comment=None, existing_type=sa.Integer)
    op.alter_column("orders", "status", server_default="new")
    op.alter_column("orders", "at", nullable=True, server_default=None, existing_type=sa.Date)
    op.add_column("notes", sa.Column("kind", sa.Text, server_default="a"))
    op.alter_column("notes", "kind", server_default=None)
    op.alter_column("tenants", "old", type_=sa.Text, existing_type=sa.Integer, postgresql_using="old::text")
    op.alter_column("plans", "name", type_=sa.Text, nullable=True, existing_type=sa.String(60))
    op.alter_column("items", "line", type_=sa.SmallInteger, existing_type=sa.Integer)
    op.alter_column("items", "name", type_=sa.Text, existing_type=sa.String(40))
    op.alter_column("tenants", "title", type_=sa.String(20), existing_type=sa.Text)
    op.alter_column("orders", "number", new_column_name="code")
    op.alter_column("tenants", "title", new_column_name="name")
    op.drop_column("plans", "price")
    op.drop_column("orders", "twice")
    op.drop_column("orders", "made")
    op.drop_column("tenants", "active")
    op.drop_column("tenants", "email")
