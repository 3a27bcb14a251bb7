"""Constraints: checks, unique ones with the key, foreign keys that come and go."""

import django.db.models.deletion
from django.contrib.postgres.operations import AddConstraintNotValid, ValidateConstraint
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0003_indexes")]
    operations = [
        migrations.AddConstraint("Order", models.CheckConstraint(condition=models.Q(total__gte=0), name="positive")),
        migrations.AddConstraint("Plan", models.CheckConstraint(condition=models.Q(price__gt=0), name="paid")),
        migrations.AddConstraint("Order", models.UniqueConstraint(fields=["tenant", "label"], name="one_label")),
        migrations.AddConstraint(
            "Order",
            models.UniqueConstraint(
                fields=["tenant", "number"], condition=models.Q(state="new"), name="one_new"
            ),
        ),
        AddConstraintNotValid(
            "Order", models.CheckConstraint(condition=models.Q(number__gte=0), name="number_positive")
        ),
        ValidateConstraint("Order", "number_positive"),
        migrations.AlterUniqueTogether("Tenant", {("id", "title")}),
        migrations.AddField(
            "Order", "plan", models.ForeignKey("shop.plan", on_delete=django.db.models.deletion.SET_NULL, null=True)
        ),
        migrations.AlterField(
            "Tenant", "plan", models.ForeignKey("shop.plan", on_delete=django.db.models.deletion.CASCADE, null=True)
        ),
        migrations.RemoveConstraint("Plan", "paid"),
    ]
