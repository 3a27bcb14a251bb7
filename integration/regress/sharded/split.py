"""A file for psql in parts: statements with their COPY data, and psql's own commands."""

import re
from dataclasses import dataclass

IDENT = re.compile(r"[A-Za-z_\x80-\uffff][A-Za-z0-9_$\x80-\uffff]*")
DOLLAR = re.compile(r"\$([A-Za-z_\x80-\uffff][A-Za-z0-9_\x80-\uffff]*)?\$")
VARIABLE = re.compile(r":(?:'([A-Za-z0-9_]+)'|\"([A-Za-z0-9_]+)\"|([A-Za-z0-9_]+))")
COMMAND = re.compile(r"\\[a-zA-Z?!_]+")
ENDS = ("\\g", "\\gx", "\\gset", "\\gexec", "\\crosstabview", "\\gdesc")


@dataclass
class Item:
    """A statement (sql) or a command (meta)."""

    kind: str
    text: str
    line: int
    data: str | None = None
    end: str | None = None


def string_end(text, at, escapes):
    at += 1
    while at < len(text):
        if escapes and text[at] == "\\":
            at += 1
        elif text[at] == "'":
            if text[at + 1 : at + 2] != "'":
                break
            at += 1
        at += 1
    return at + 1


def comment_end(text, at):
    depth, at = 1, at + 2
    while at < len(text) and depth:
        if text.startswith(("/*", "*/"), at):
            depth += 1 if text[at] == "/" else -1
            at += 1
        at += 1
    return at


class Splitter:
    """Reads one file; `variables` may change between its items."""

    def __init__(self, text, variables):
        self.text, self.variables = text, variables
        self.at, self.line, self.start = 0, 1, 1
        self.flush()

    def flush(self):
        statement = "".join(self.parts).strip() if hasattr(self, "parts") else ""
        # Parentheses and BEGIN ATOMIC that are open, and the first words.
        self.parts, self.depth, self.atomic, self.words = [], 0, 0, []
        return statement

    def take(self, end):
        self.line += self.text.count("\n", self.at, end)
        self.parts.append(self.text[self.at : end])
        self.at = end

    def quoted_end(self):
        """The end of a string, a quoted name or a comment that starts here."""
        text, at, last = self.text, self.at, self.parts[-1] if self.parts else ""
        if text[at] == "'":
            return string_end(text, at, last in ("E", "e"))
        if text[at] == '"':
            end = text.find('"', at + 1)
            while text[end + 1 : end + 2] == '"':
                end = text.find('"', end + 2)
            return end + 1
        if text.startswith("/*", at):
            return comment_end(text, at)
        tag = DOLLAR.match(text, at)
        if tag and not last[-1:].isalnum():
            end = text.find(tag[0], tag.end())
            return len(text) if end < 0 else end + len(tag[0])
        return None

    def command(self):
        """A backslash: an item, or None."""
        if self.text.startswith("\\;", self.at):
            self.parts.append(";")
            self.at += 2
            return None
        command = self.text[self.at :].split("\n", 1)[0]
        self.at += len(command)
        name = COMMAND.match(command)
        if name and name[0] in ENDS:
            statement = self.flush()
            return Item("sql", statement, self.start, end=command) if statement else None
        if command.startswith("\\r"):
            self.flush()
            return None
        return Item("meta", command, self.line)

    def variable(self):
        found = VARIABLE.match(self.text, self.at)
        if self.text[self.at - 1 : self.at] == ":" or not found:
            return False
        value = self.variables.get(found[1] or found[2] or found[3])
        if value is None:
            return False
        literal = "'" + value.replace("'", "''") + "'"
        self.parts.append(literal if found[1] else f'"{value}"' if found[2] else value)
        self.at = found.end()
        return True

    def word(self, word):
        self.take(self.at + len(word))
        word = word.lower()
        if len(self.words) < 4:
            self.words.append(word)
        if self.words[0] == "create" and {"function", "procedure"} & set(self.words):
            self.atomic += word == "begin" or (word == "case" and self.atomic > 0)
            self.atomic -= word == "end" and self.atomic > 0

    def ended(self):
        """The statement before a semicolon, with the data that follow its line."""
        self.at += 1
        statement = self.flush()
        if not statement or not re.match(r"(?is)copy\b.*\bfrom\s+stdin\b", statement):
            return Item("sql", statement, self.start) if statement else None
        behind, _, rest = self.text[self.at :].partition("\n")
        lines = rest.split("\n")
        count = lines.index("\\.") if "\\." in lines else len(lines)
        data = "".join(f"{line}\n" for line in lines[:count])
        item = Item("sql", statement, self.start, data=data)
        self.line += count + 2
        # What stands behind the semicolon comes after the data.
        self.text, self.at = "\n".join([behind, *lines[count + 1 :]]), 0
        return item

    def items(self):
        while self.at < len(self.text):
            letter = self.text[self.at]
            if not self.parts and letter.isspace():
                self.line += letter == "\n"
                self.at += 1
                continue
            self.start = self.start if self.parts else self.line
            end = self.quoted_end()
            word = IDENT.match(self.text, self.at)
            if end is not None:
                self.take(end)
            elif self.text.startswith("--", self.at):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif letter == "\\":
                item = self.command()
                if item:
                    yield item
            elif word:
                self.word(word[0])
            elif letter == ";" and not self.depth and not self.atomic:
                item = self.ended()
                if item:
                    yield item
            elif letter != ":" or not self.variable():
                self.depth = max(0, self.depth + (letter == "(") - (letter == ")"))
                self.take(self.at + 1)
        statement = self.flush()
        if statement:
            yield Item("sql", statement, self.start)


def split(text, variables):
    """The parts of a file, one by one."""
    return Splitter(text, variables).items()
