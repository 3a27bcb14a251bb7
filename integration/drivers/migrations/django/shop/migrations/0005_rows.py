"""Rows: changed in batches, by reading with a cursor of the server, and by one statement."""

from django.db import migrations, models
from django.db.models import Count, F, OuterRef, Subquery, Value
from django.db.models.functions import Concat, Upper


def change(apps, editor):
    using = editor.connection.alias
    tenant, order, plan = (apps.get_model("shop", name) for name in ("Tenant", "Order", "Plan"))
    batch = []
    for one in tenant.objects.using(using).order_by("id").iterator(chunk_size=6):
        one.email = f"{one.title}@example.org"
        batch.append(one)
    tenant.objects.using(using).bulk_update(batch, ["email"], batch_size=7)
    orders = order.objects.using(using)
    orders.filter(total__gt=50).update(state="large", label=Concat(Upper("label"), Value("!")))
    orders.update(total=F("total") + 1)
    cheap = plan.objects.using(using).order_by("name").values("id")[:1]
    orders.filter(tenant_id__lt=4).update(plan_id=Subquery(cheap))
    found = tenant.objects.using(using).annotate(n=Count("order")).filter(n__gt=3).order_by("id")
    for one in found:
        one.title = f"{one.title} {one.n}"
        one.save(update_fields=["title"])
    last = orders.filter(tenant_id=OuterRef("pk")).order_by("-number").values("label")[:1]
    tenant.objects.using(using).filter(id__gt=15).update(email=Subquery(last))
    orders.filter(tenant__title__startswith="t7").delete()
    extra, made = tenant.objects.using(using).get_or_create(id=500, defaults={"title": "extra"})
    assert made
    orders.bulk_create(
        [order(tenant_id=extra.id, number=1, label="x", state="a"), order(tenant_id=1, number=0, label="y", state="b")],
        update_conflicts=True, unique_fields=["tenant", "number"], update_fields=["label", "state"],
    )


class Migration(migrations.Migration):
    dependencies = [("shop", "0004_constraints")]
    operations = [migrations.RunPython(change, migrations.RunPython.noop)]
