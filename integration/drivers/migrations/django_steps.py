"""django_steps.py PROXY PLAIN: Django migrates both step by step, and goes back."""

import io
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import django
from beside import compare
from django.conf import settings
from django.core.management import call_command
from django.db.migrations.loader import MigrationLoader

urls = sys.argv[1:3]
sys.path.insert(0, str(Path(__file__).parent / "django"))


def place(url):
    parts = urlparse(url)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    port = parts.port or parse_qs(parts.query)["port"][0]
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": host, "PORT": port, "USER": parts.username, "NAME": parts.path[1:],
    }


settings.configure(
    INSTALLED_APPS=["django.contrib.postgres", "shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    DATABASES={"default": place(urls[0]), "plain": place(urls[1])},
)
django.setup()


def both(*words):
    said = []
    for database in ("default", "plain"):
        out = io.StringIO()
        call_command(*words, database=database, stdout=out)
        said.append(out.getvalue())
    if said[0] != said[1]:
        raise AssertionError(f"{words}\nproxy: {said[0]}\nplain: {said[1]}")


steps = sorted(name for app, name in MigrationLoader(None).disk_migrations if app == "shop")
for step in steps:
    both("sqlmigrate", "shop", step)
    both("migrate", "shop", step)
    compare(*urls, f"migrate {step}")
for step in [*steps[-2::-1], "zero"]:
    both("migrate", "shop", step)
    compare(*urls, f"back to {step}")
both("migrate")
compare(*urls, "all again")
print("ok")
