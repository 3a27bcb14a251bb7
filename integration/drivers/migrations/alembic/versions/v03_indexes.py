"""Indexes: also CONCURRENTLY, renamed, of expressions and of a part of the rows."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "v03", "v02"


def upgrade():
    op.create_index("by_total", "orders", ["tenant_id", sa.text("total DESC")])
    op.create_index("open", "orders", ["made"], postgresql_where=sa.text("status = 'new'"))
    op.create_index("by_lower_title", "tenants", [sa.text("lower(title)")], postgresql_include=["plan"])
    op.create_index("one_number", "orders", ["tenant_id", "number"], unique=True)
    op.create_index("plan_names", "plans", ["name"], unique=True)
    with op.get_context().autocommit_block():
        op.create_index("item_names", "items", ["name"], postgresql_concurrently=True, if_not_exists=True)
        op.create_index("one_email", "tenants", ["id", "email"], unique=True, postgresql_concurrently=True)
        op.create_index("gone", "orders", ["number"], postgresql_concurrently=True)
        op.drop_index("gone", "orders", postgresql_concurrently=True)
    op.execute("ALTER INDEX by_total RENAME TO by_sum")
    op.execute("ALTER INDEX IF EXISTS one_email RENAME TO one_address")
    op.drop_index("open", "orders")


def downgrade():
    op.create_index("open", "orders", ["made"])
    op.drop_index("open")
    op.execute("ALTER INDEX one_address RENAME TO one_email")
    with op.get_context().autocommit_block():
        op.drop_index("one_email", postgresql_concurrently=True, if_exists=True)
        op.drop_index("item_names", "items", postgresql_concurrently=True)
    for name, table in (("plan_names", "plans"), ("one_number", "orders"), ("by_lower_title", "tenants")):
        op.drop_index(name, table)
    op.drop_index("by_sum", "orders")
