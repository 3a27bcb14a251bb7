"""Fields: added with and without defaults, renamed, of another type, gone."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_tables")]
    operations = [
        migrations.AddField("Tenant", "active", models.BooleanField(default=True)),
        migrations.AddField("Tenant", "email", models.EmailField(null=True, max_length=80)),
        migrations.AddField("Order", "state", models.CharField(max_length=10, db_default="new")),
        migrations.AddField("Plan", "price", models.DecimalField(max_digits=8, decimal_places=2, default="1.50")),
        migrations.AddField("Note", "made", models.DateTimeField(db_default=Now())),
        migrations.RemoveField("Note", "made"),
        migrations.RenameField("Order", "code", "label"),
        migrations.RenameField("Tenant", "name", "title"),
        migrations.AlterField("Order", "label", models.TextField(default="", db_index=True)),
        migrations.AlterField("Order", "total", models.BigIntegerField(null=True)),
        migrations.AlterField("Tenant", "title", models.CharField(max_length=200, db_comment="as on the door")),
        migrations.AlterField("Plan", "name", models.CharField(max_length=60, unique=True)),
        migrations.AlterField("Note", "body", models.CharField(max_length=90, null=True)),
        migrations.RunSQL(
            "UPDATE shop_order SET total = 0 WHERE total IS NULL", migrations.RunSQL.noop
        ),
        migrations.AlterField("Order", "total", models.BigIntegerField(default=0)),
        migrations.RemoveField("Order", "gone"),
    ]
