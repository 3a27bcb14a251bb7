"""Django migrates twice, finds nothing more to migrate, and reads the tables back as it made them."""

import io
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlparse

import django
from django.conf import settings
from django.core.management import call_command

FIRST = """
from django.db import models


class Plan(models.Model):
    name = models.CharField(max_length=40, unique=True)


class Tenant(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.CharField(max_length=80, db_index=True)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, null=True)


class Order(models.Model):
    pk = models.CompositePrimaryKey("tenant_id", "number")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    number = models.BigIntegerField()
    total = models.DecimalField(max_digits=12, decimal_places=2, default=0)
"""

SECOND = FIRST.replace("models.CASCADE", "models.DO_NOTHING, db_constraint=False").replace(
    "    total =",
    """    note = models.TextField(default="none")
    other = models.ForeignKey(Plan, on_delete=models.PROTECT, null=True)
    total =""",
) + """
    class Meta:
        indexes = [models.Index(fields=["tenant", "total"], name="by_total")]
        constraints = [
            models.CheckConstraint(condition=models.Q(total__gte=0), name="total_is_not_negative"),
        ]
"""

folder = Path(tempfile.mkdtemp())
sys.path.insert(0, str(folder))
(folder / "shop").mkdir()
(folder / "shop" / "__init__.py").touch()
(folder / "shop" / "models.py").write_text(FIRST if len(sys.argv) == 2 else SECOND)
if len(sys.argv) > 2:
    os.symlink(sys.argv[2], folder / "shop" / "migrations")

url = urlparse(sys.argv[1])
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": url.hostname, "PORT": url.port, "USER": url.username, "NAME": url.path[1:],
        }
    },
)
django.setup()
from django.db import connection  # noqa: E402


def command(*words):
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


command("makemigrations", "shop")
command("migrate")
command("makemigrations", "shop", "--check")

with connection.cursor() as cursor:
    look = connection.introspection
    tables = {table.name for table in look.get_table_list(cursor)}
    assert not [name for name in tables if "_s" in name.replace("shop_", "")], tables
    assert {"shop_plan", "shop_tenant", "shop_order", "auth_user"} <= tables, tables
    relations = look.get_relations(cursor, "shop_order")
    constraints = look.get_constraints(cursor, "shop_order")
    keys = [c["foreign_key"] for c in constraints.values() if c["foreign_key"]]
    primary = [c["columns"] for c in constraints.values() if c["primary_key"]]
assert primary == [["tenant_id", "number"]], constraints
if len(sys.argv) == 2:
    assert {name: where[:2] for name, where in relations.items()} == {
        "tenant_id": ("id", "shop_tenant")
    }, relations
    assert keys == [("shop_tenant", "id")], constraints
else:
    assert keys == [("shop_plan", "id")], constraints
inspected = command("inspectdb")
assert "class ShopOrder(" in inspected and "_s0" not in inspected, inspected

if len(sys.argv) == 2:
    # The next version of the same application, in a process of its own.
    import subprocess

    migrations = str(folder / "shop" / "migrations")
    subprocess.run([sys.executable, __file__, sys.argv[1], migrations], check=True)
else:
    print("ok")
