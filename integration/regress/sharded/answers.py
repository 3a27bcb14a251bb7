"""What two servers answered, as it is compared and shown."""

import re

FLOATS = (700, 701, 1021, 1022)


def is_ordered(sql):
    """Whether ORDER BY stands outside of parentheses."""
    text, depth = re.sub(r"'(?:[^']|'')*'", "''", sql).lower(), 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and re.match(r"order\s+by", text[at : at + 20]):
            return True
    return False


def plain(answers, ordered):
    """Answers as they are compared: of errors the SQLSTATE, of rows in no order the set."""
    found = error(answers)
    if found:
        return [found[:2]]
    rows = lambda it: it if ordered else sorted(it, key=repr)
    return [(it[0], it[1], rows(it[2]), *it[3:]) if it[0] in ("rows", "copy") else it for it in answers]


def rounded(answers):
    """The same, with floating-point numbers of fewer digits: sums of several nodes."""

    def row(columns, values):
        of = lambda column, value: column[1] in FLOATS and value and b"{" not in value
        return tuple(f"{float(v):.8g}" if of(c, v) else v for c, v in zip(columns, values))

    return [
        (
            (it[0], it[1], sorted((row(it[1], values) for values in it[2]), key=repr), it[3])
            if it[0] == "rows"
            else it
        )
        for it in answers
    ]


def error(answers):
    return next((answer for answer in answers if answer[0] == "error"), None)


def shown(answers, most=6):
    lines = []
    for answer in answers:
        if answer[0] != "rows":
            lines.append(str(answer)[:600])
            continue
        columns = " ".join(f"{name}:{kind}:{modifier}" for name, kind, modifier in answer[1])
        lines.append(f"[{columns}] {len(answer[2])} rows {answer[3]}")
        text = lambda value: "∅" if value is None else value.decode("utf8", "replace")[:200]
        lines += ["   " + "|".join(map(text, row)) for row in answer[2][:most]]
    return "\n        ".join(lines)
