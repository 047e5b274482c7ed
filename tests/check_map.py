"""docs/book_map.md and docs/differences.md: the functions they name, linked to their lines.

    python tests/check_map.py            # fails when a link is missing or points elsewhere
    python tests/check_map.py --write    # sets the links anew, after the code has changed

In the map's right-hand column `chapter07/x.py:name` and the `names` that follow it become links; in
the second column of the differences, what the chapter's scripts define.
"""

import argparse
import ast
import functools
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[(`[^`\]]+`)\]\([\w./-]+(?:#L\d+)?\)")
FILE = r"(?:chapter\d\d|data|benchmarks|tests)/[\w/]+\.py"


@functools.cache
def defined_in(file):
    """{name: line} of a file's functions, classes, methods and constants; {} without the file."""
    path = ROOT / file
    if not path.exists():
        return {}
    lines = {}
    nodes = ast.parse(path.read_text()).body
    methods = [method for node in nodes if isinstance(node, ast.ClassDef) for method in node.body]
    for node in methods + nodes:  # the top level wins where a name is in both
        names = [getattr(node, "name", None)]
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        lines |= {name: node.lineno for name in names if name}
    return lines


def link_cell(cell):
    """The same cell with its links set anew."""
    file = None

    def link(match):
        nonlocal file
        text = match[1]
        if found := re.fullmatch(rf"({FILE})(?::(\w+))?", text):
            file, name = found[1], found[2]
            if not (ROOT / file).exists():
                return f"`{text}`"
            if name is None:
                return f"[`{text}`](../{file})"
        elif re.fullmatch(r"[\w./-]+", text) and (ROOT / text).is_file():
            return f"[`{text}`](../{text})"
        else:
            name = text
        line = defined_in(file).get(name) if file else None
        return f"[`{text}`](../{file}#L{line})" if line else f"`{text}`"

    return re.sub(r"`([^`]+)`", link, LINK.sub(r"\1", cell))


def link_map(text):
    """docs/book_map.md with all its links set anew."""
    lines = []
    for line in text.splitlines():
        cells = line.split(" | ")
        if line.startswith("|") and len(cells) >= 2:
            cells[-1] = link_cell(cells[-1])
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def link_differences(text):
    """docs/differences.md likewise: in its second column, what the chapter's scripts define."""
    lines, scripts = [], []
    for line in text.splitlines():
        if line.startswith("## "):
            found = re.match(r"## Chapter (\d+)", line)
            scripts = sorted(ROOT.glob(f"chapter{int(found[1]):02}/**/*.py")) if found else []
        cells = line.split(" | ")
        if line.startswith("|") and len(cells) >= 2:
            cells[1] = link_names(cells[1], [path.relative_to(ROOT).as_posix() for path in scripts])
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def link_names(cell, files):
    """The names in a cell, each linked to the first of the files that defines it."""

    def link(match):
        name = re.match(r"\w*", match[1])[0]
        for file in files:
            if line := defined_in(file).get(name):
                return f"[`{match[1]}`](../{file}#L{line})"
        return f"`{match[1]}`"

    return re.sub(r"(?<!\[)`([^`]+)`(?!\])", link, LINK.sub(r"\1", cell))


def check(text, link=link_map):
    """What is wrong with a page, one line for each row that is."""
    problems = []
    for number, (is_line, should) in enumerate(
        zip(text.splitlines(), link(text).splitlines(), strict=True), 1
    ):
        if is_line != should:
            problems.append(f"line {number}: {is_line}\n  should be: {should}")
        for file, name in re.findall(rf"`({FILE})(?::(\w+))?`", is_line):
            if not (ROOT / file).exists():
                problems.append(f"line {number}: there is no {file}")
            elif name and name not in defined_in(file):
                problems.append(f"line {number}: {file} has no {name}")
    return problems


PAGES = {"docs/book_map.md": link_map, "docs/differences.md": link_differences}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="set the links anew")
    write = parser.parse_args().write
    problems = []
    for name, link in PAGES.items():
        page = ROOT / name
        if write:
            page.write_text(link(page.read_text()))
        problems += [f"{name}: {problem}" for problem in check(page.read_text(), link)]
    print("\n".join(problems) or "every link leads to its function")
    return len(problems) > 0


if __name__ == "__main__":
    sys.exit(main())
