"""alembic_steps.py PROXY PLAIN: Alembic upgrades both step by step, and goes back."""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from beside import compare


def config(url):
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
    made.set_main_option("sqlalchemy.url", url.replace("postgresql://", "postgresql+psycopg://").replace("%", "%%"))
    return made


urls = sys.argv[1:3]
both = [config(url) for url in urls]
steps = [script.revision for script in ScriptDirectory.from_config(both[0]).walk_revisions()][::-1]
for step in steps:
    for one in both:
        command.upgrade(one, step)
    compare(*urls, f"upgrade {step}")
for step in [*steps[-2::-1], "base"]:
    for one in both:
        command.downgrade(one, step)
    compare(*urls, f"downgrade to {step}")
for one in both:
    command.upgrade(one, "head")
compare(*urls, "head again")
print("ok")
