"""The pages name files, functions and figures that exist."""

import ast
import re

import backends
import check_map
import pytest
from conftest import ROOT
from contract import SCRIPTS

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
PAGES += sorted(ROOT.glob("data/samples/README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_named_functions_exist(page):
    """`chapterNN/x.py:name` is a file with that function, class or constant."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for file, name in re.findall(r"`((?:chapter\d\d|data|tests|benchmarks)/\S+?\.py):(\w+)", text):
        assert name in check_map.defined_in(file), f"{page.name}: {file} has no {name}"


def test_every_script_is_in_the_map_and_in_its_readme():
    book_map = (ROOT / "docs" / "book_map.md").read_text()
    for script in sorted(ROOT.glob("chapter*/*.py")):
        assert f"{script.parent.name}/{script.name}" in book_map, f"{script} is not in book_map.md"
        assert script.name in (script.parent / "README.md").read_text(), f"{script}: not in README"


def test_nothing_is_left_to_fill_in():
    for path in [*PAGES, *ROOT.glob("*/*.py")]:
        if path.parent.name != "tests":
            assert not re.search(r"@@[A-Z]|\bEXPECT\b|\bTODO\b|FIXME", path.read_text()), path


@pytest.mark.parametrize(
    ("name", "links"), [("docs/book_map.md", 150), ("docs/differences.md", 20)]
)
def test_pages_link_each_function_by_its_line(name, links):
    page = (ROOT / name).read_text()
    assert check_map.check(page, check_map.PAGES[name]) == []
    assert page.count(".py#L") >= links


def test_a_renamed_function_is_found(monkeypatch):
    known = check_map.defined_in

    def renamed(file):
        names = dict(known(file))
        if file == "chapter07/cnn_cifar10.py":
            names["build_convnet"] = names.pop("build_network")
        if file == "chapter07/cnn_cifar10_augmented.py":
            names["make_datagen"] = names.pop("create_datagen")
        return names

    monkeypatch.setattr(check_map, "defined_in", renamed)
    problems = check_map.check((ROOT / "docs" / "book_map.md").read_text())
    assert any("chapter07/cnn_cifar10.py has no build_network" in line for line in problems)
    differences = (ROOT / "docs" / "differences.md").read_text()
    problems = check_map.check(differences, check_map.link_differences)
    assert any("create_datagen" in line for line in problems)


def test_backends_page_covers_every_script():
    page = backends.PAGE.read_text()
    for command in backends.COMMANDS.splitlines():
        assert f"| `{command}` |" in page, f"{command}: tests/backends.py tensorflow jax --write"
    for script in ROOT.glob("chapter*/*.py"):
        if "\ndef main()" in script.read_text():
            name = script.relative_to(ROOT).as_posix()
            assert name in backends.COMMANDS, f"{name} is not in tests/backends.py"


def test_every_option_has_help():
    for script in [*ROOT.glob("chapter*/*.py"), *ROOT.glob("data/*.py"), *ROOT.glob("bench*/*.py")]:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                given = {keyword.arg for keyword in node.keywords}
                assert "help" in given, f"{script.name}:{node.lineno}: {ast.unparse(node)}"


def test_commands_can_be_typed_one_after_the_other():
    """What changes the outcome needs other data or a --run-dir, or the run before is in the way."""
    free = {"--epochs", "--nb-steps", "--evaluate", "--render", "--max-iter"}
    pages = {page: "".join(re.findall(r"```\n(.*?)```", page.read_text(), re.S)) for page in PAGES}
    pages |= {ROOT / script: (ROOT / script).read_text().split('"""')[1] for script in SCRIPTS}
    for page, text in pages.items():
        for script, rest in re.findall(r"python (chapter\S+\.py)(.*)", re.sub(r"\\+\n", " ", text)):
            options = set(re.findall(r"--[a-z-]+", rest.partition(" #")[0]))
            if script in SCRIPTS and not options & {"--data", "--run-dir"}:
                assert options <= free, f"{page}: {script} {rest}"
