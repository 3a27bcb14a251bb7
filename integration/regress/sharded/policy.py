"""A policy for a file of SQL: which of its tables are sharded by which column, and which are copied to every node."""

import re
import zlib

KEY_TYPES = {
    **dict.fromkeys(["int2", "smallint"], "smallint"),
    **dict.fromkeys(["int4", "int", "integer", "serial"], "integer"),
    **dict.fromkeys(["int8", "bigint", "bigserial", "serial8"], "bigint"),
    **dict.fromkeys(["varchar", "character varying"], "varchar"),
    **{name: name for name in ("text", "uuid", "date", "timestamptz")},
}
CREATE = re.compile(
    r"(?is)^create\s+(?:unlogged\s+)?table\s+(?:if\s+not\s+exists\s+)?([a-z_0-9.\"]+)\s*\((.*)$"
)
OTHERWISE = re.compile(r"(?is)create\s+table\s+([a-z_0-9.]+)\s+(?:as|partition|of)\b")
UNIQUE_LATER = (
    re.compile(
        r"(?is)create\s+unique\s+index\s+.*?\bon\s+(?:only\s+)?([a-z_0-9.]+)\s*(?:using\s+\w+\s*)?\((.*)$"
    ),
    re.compile(
        r"(?is)alter\s+table\s+(?:only\s+)?([a-z_0-9.]+)\s+add\s+(?:constraint\s+\w+\s+)?"
        r"(?:primary\s+key|unique)\s*\((.*)$"
    ),
)
UNIQUE = re.compile(r"(?i)(?:constraint\s+\S+\s+)?(?:primary key|unique(?: nulls not distinct)?)\s*\((.*?)\)")
COLUMN = re.compile(r"(?i)([a-z_0-9]+)\s+([a-z_0-9]+(?: varying)?)(.*)$")


def parts(text):
    """What stands between commas, up to the closing parenthesis, and what comes behind it."""
    found, depth, quoted, here = [], 0, False, ""
    for at, letter in enumerate(text):
        quoted ^= letter == "'"
        if not quoted:
            depth += (letter == "(") - (letter == ")")
            if depth < 0:
                return [*found, here], text[at + 1 :]
            if letter == "," and depth == 0:
                found.append(here)
                here = ""
                continue
        here += letter
    return [*found, here], ""


def first_words(columns):
    return {column.split()[0].lower() for column in columns if column.strip()}


def candidates(elements):
    """The columns that may be the shard key: in each unique constraint. None: not to be sharded."""
    columns, unique = [], []
    for element in (" ".join(element.split()) for element in elements):
        found = UNIQUE.match(element)
        if found:
            unique.append(first_words(found[1].split(",")))
            continue
        if re.match(r"(?i)(constraint\s+\S+\s+)?exclude", element):
            return None
        found = COLUMN.match(element)
        if not found or re.match(r"(?i)(constraint|check|foreign|like)\b", element):
            continue
        name, kind, more = found[1].lower(), found[2].lower(), found[3]
        if re.search(r"(?i)\b(primary key|unique)\b", more):
            unique.append({name})
        if kind in KEY_TYPES and not re.search(r"(?i)\[|generated \w+ as \(", more):
            columns.append((name, KEY_TYPES[kind]))
    return [column for column in columns if all(column[0] in names for names in unique)]


def build(statements, home=()):
    """The policy, the sharded tables, the reference tables; those in `home` are neither."""
    tables, referenced, left_out = {}, set(), set(home)
    for statement in statements:
        text = re.sub(r"/\*.*?\*/", " ", statement, flags=re.S).strip()
        referenced |= {name.lower() for name in re.findall(r"(?i)references\s+([a-z_0-9.]+)", text)}
        for found in filter(None, (pattern.match(text) for pattern in UNIQUE_LATER)):
            name, names = found[1].lower(), first_words(parts(found[2])[0])
            if name in tables:
                tables[name] = [column for column in tables[name] if column[0] in names]
        found = CREATE.match(text)
        if not found:
            found = OTHERWISE.match(text)
            left_out |= {found[1].lower()} if found else set()
            continue
        name = found[1].lower().removeprefix("public.")
        if name.startswith("pg_temp") or '"' in name:
            continue
        elements, behind = parts(found[2])
        columns = candidates(elements)
        if columns is None or re.search(r"(?i)\b(inherits|partition\s+(by|of))\b|^\s*as\b", behind):
            left_out.add(name)
        else:
            tables[name] = [column for column in columns if column in tables.get(name, columns)]
    return written(tables, referenced, left_out)


def written(tables, referenced, left_out):
    groups, reference = {}, set()
    for name, columns in sorted(tables.items()):
        chance = zlib.crc32(f"{name}0".encode())
        if name in left_out:
            continue
        if name in referenced or chance % 7 == 0 or not columns and chance % 3 == 0:
            reference.add(name)
        elif columns:
            column, kind = columns[0]
            groups.setdefault((kind, chance // 7 % 2), {})[name] = column
    lines = ["groups:"] if groups else []
    for (kind, which), members in sorted(groups.items()):
        lines += [f"  {kind}_{which}:", f"    key: {kind}", f"    shards: {[7, 5][which]}", "    tables:"]
        lines += [f"      {name}: {column}" for name, column in sorted(members.items())]
    if reference:
        lines.append(f"reference_tables: [{', '.join(sorted(reference))}]")
    return "\n".join(lines), {name for members in groups.values() for name in members}, reference
