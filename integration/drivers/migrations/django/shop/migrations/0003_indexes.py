"""Indexes, without blocking."""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models
from django.db.models.functions import Lower


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0002_fields")]
    operations = [
        migrations.AddIndex("Order", models.Index("tenant", models.F("total").desc(), name="by_total")),
        migrations.AddIndex("Order", models.Index(fields=["state"], condition=models.Q(state="new"), name="open")),
        migrations.AddIndex("Tenant", models.Index(Lower("title"), name="lower_title")),
        AddIndexConcurrently("Order", models.Index(fields=["label"], name="labels")),
        AddIndexConcurrently("Tenant", models.Index(fields=["email"], name="emails")),
        AddIndexConcurrently("Note", models.Index(fields=["body"], name="bodies")),
        RemoveIndexConcurrently("Tenant", "emails"),
        migrations.RenameIndex("Order", old_name="by_total", new_name="by_sum"),
        migrations.RemoveIndex("Order", "open"),
    ]
