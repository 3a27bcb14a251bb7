"""Tables of each kind, with rows."""

import django.db.models.deletion
from django.db import migrations, models


def fill(apps, editor):
    using = editor.connection.alias
    model = lambda name: apps.get_model("shop", name).objects.using(using)
    model("Plan").bulk_create([apps.get_model("shop", "Plan")(name=f"plan {n}") for n in range(3)])
    plans = list(model("Plan").order_by("name"))
    for n in range(1, 21):
        model("Tenant").create(id=n, name=f"t{n}", plan=plans[n % 3])
    order, line = apps.get_model("shop", "Order"), apps.get_model("shop", "Note")
    model("Order").bulk_create(
        [order(tenant_id=n % 20 + 1, number=n, total=n * 2, code=f"c{n}") for n in range(80)], batch_size=33
    )
    model("Note").bulk_create([line(body=f"n{n}") for n in range(5)])


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Plan",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.CharField(max_length=40, unique=True)),
            ],
        ),
        migrations.CreateModel(
            "Tenant",
            [
                ("id", models.BigIntegerField(primary_key=True)),
                ("name", models.CharField(max_length=20, db_index=True)),
                ("plan", models.ForeignKey("shop.plan", on_delete=django.db.models.deletion.PROTECT, null=True)),
            ],
        ),
        migrations.CreateModel(
            "Order",
            [
                ("pk", models.CompositePrimaryKey("tenant_id", "number")),
                ("tenant", models.ForeignKey("shop.tenant", on_delete=django.db.models.deletion.CASCADE)),
                ("number", models.BigIntegerField()),
                ("total", models.IntegerField(null=True)),
                ("code", models.CharField(max_length=8, default="")),
                ("gone", models.TextField(null=True)),
            ],
        ),
        migrations.CreateModel(
            "Note", [("id", models.BigAutoField(primary_key=True)), ("body", models.TextField(blank=True))]
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
