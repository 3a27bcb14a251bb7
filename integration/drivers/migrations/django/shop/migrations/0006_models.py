"""Models that come and go; a generated field; one that is renamed on the home node."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import F


class Migration(migrations.Migration):
    dependencies = [("shop", "0005_rows")]
    operations = [
        migrations.AlterUniqueTogether("Tenant", set()),
        migrations.CreateModel(
            "Payment",
            [
                ("pk", models.CompositePrimaryKey("tenant_id", "id")),
                ("id", models.BigIntegerField()),
                ("tenant", models.ForeignKey("shop.tenant", on_delete=django.db.models.deletion.CASCADE)),
                ("paid", models.DecimalField(max_digits=10, decimal_places=2)),
                ("plan", models.ForeignKey("shop.plan", on_delete=django.db.models.deletion.PROTECT, null=True)),
            ],
            options={"indexes": [models.Index(fields=["tenant", "paid"], name="paid_when")]},
        ),
        migrations.AddField(
            "Payment",
            "twice",
            models.GeneratedField(
                expression=F("paid") * 2, output_field=models.DecimalField(max_digits=11, decimal_places=2),
                db_persist=True,
            ),
        ),
        migrations.RunSQL(
            "INSERT INTO shop_payment (tenant_id, id, paid, plan_id)"
            " SELECT tenant_id, number, total, plan_id FROM shop_order WHERE total > 40",
            "DELETE FROM shop_payment",
        ),
        migrations.CreateModel("Label", [("id", models.UUIDField(primary_key=True)), ("name", models.TextField())]),
        migrations.DeleteModel("Label"),
        migrations.RenameModel("Note", "Remark"),
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL("CREATE VIEW sums AS SELECT tenant_id, sum(paid) FROM shop_payment GROUP BY 1", "DROP VIEW sums")],
        ),
    ]
