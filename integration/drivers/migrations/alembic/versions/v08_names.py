"""Tables get other names, and their old ones back."""

from alembic import op

revision, down_revision = "v08", "v07"


def upgrade():
    op.execute("DROP VIEW balances")
    op.rename_table("payments", "receipts")
    op.rename_table("labels", "tags")
    op.rename_table("plans", "offers")
    op.execute("ALTER INDEX paid_when RENAME TO received_when")
    op.execute("ALTER TABLE receipts RENAME CONSTRAINT payments_pkey TO receipts_pkey")
    op.execute(
        "INSERT INTO receipts (tenant_id, id, order_id, paid)"
        " SELECT tenant_id, id + 5000, id, 3 FROM orders WHERE id % 9 = 0"
    )
    op.execute("UPDATE offers SET price = price + 1")


def downgrade():
    op.execute("UPDATE offers SET price = price - 1")
    op.execute("DELETE FROM receipts WHERE id >= 5000")
    op.execute("ALTER TABLE receipts RENAME CONSTRAINT receipts_pkey TO payments_pkey")
    op.execute("ALTER INDEX received_when RENAME TO paid_when")
    op.rename_table("offers", "plans")
    op.rename_table("tags", "labels")
    op.rename_table("receipts", "payments")
    op.execute("CREATE VIEW balances AS SELECT tenant_id, sum(paid) AS paid FROM payments GROUP BY tenant_id")
