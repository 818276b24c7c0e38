"""Every snippet of the pages is valid: shell lines, JSON, Python.

Commands of `dp-mft` and `dp` go through the parsers of their verbs, JSON into a template and
through deepmd-kit's schema, Python through the signatures of what it calls. What the tutorial says
is run in ``test_tutorial.py``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

import pytest
from deepmd.main import main_parser

from deepmd_mft.cli.main import VERBS, build_parser
from deepmd_mft.files.shipped import template_names
from deepmd_mft.inputs.branches import normalised
from tests.helpers.dp import ROOT

PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    if "_build" not in path.parts
)
#: What a shell does itself, and what needs a machine of another kind.
PLAIN = {"cd", "pip", "python3", ".", "git", "pre-commit"}


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets_of(page: str, text: str) -> list[Snippet]:
    found = []
    opened: tuple[int, str] | None = None
    body: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened, body = (number, line[3:].strip()), []
            else:
                found.append(Snippet(page, *opened, "\n".join(body)))
                opened = None
        elif opened is not None:
            body.append(line)
    assert opened is None, f"{page}: a snippet does not end"
    return found


SNIPPETS = [
    one
    for path in dict.fromkeys(PAGES)
    for one in snippets_of(str(path.relative_to(ROOT)), path.read_text())
]


def of(kind: str) -> Any:
    return pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.kind == kind], ids=str)


def test_every_snippet_says_what_it_is():
    kinds = {"sh", "json", "python", "text", "{toctree}"}
    assert not [str(one) for one in SNIPPETS if one.kind not in kinds]
    assert {one.kind for one in SNIPPETS} == kinds


def test_no_snippet_hides_in_an_indented_block():
    indented = re.compile(r"\n\n {4}(dp|dp-mft|pip|make|python) ")
    assert not [str(path) for path in PAGES if indented.search(path.read_text())]


# --- shell --------------------------------------------------------------------------------------


def commands_of(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check_command(words: list[str]) -> None:
    while "=" in words[0]:  # variables of the environment
        words = words[1:]
    name, *rest = words
    if name == "torchrun":
        check_command(rest[rest.index("--no-python") + 1 :])
    elif name == "dp-mft":
        check_verb(rest)
    elif name == "dp":
        main_parser().parse_args(rest)
    elif name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        asked = [] if "-C" in rest else [one for one in rest if not one.startswith("-")]
        assert set(asked) <= set(targets), f"no target {asked} in the Makefile"
    elif name == "python":
        assert (ROOT / rest[0]).is_file(), f"no script {rest[0]}"
    else:
        assert name in PLAIN, f"what is {name}?"


def check_verb(words: list[str]) -> None:
    if words[0] in {"--help", "VERB"}:
        return
    assert words[0] in VERBS, f"no verb {words[0]}"
    args = build_parser([words[0]]).parse_args(words)
    for text in templates_in(args):
        assert text.endswith(".json") or text in template_names(), f"no template {text}"


def templates_in(args: Any) -> list[str]:
    given = getattr(args, "template", [])
    return [str(one).rpartition("=")[2] for one in (given if isinstance(given, list) else [given])]


@of("sh")
def test_shell(snippet):
    for words in commands_of(snippet.text):
        check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "dp-mft input small/mft --chekpoint a.pt",
        "dp-mft input small/mtf --checkpoint a.pt",
        "dp-mft nothing",
        "dp --pt train input.json --finetunes a.pt",
        "make everything",
        "python benchmarks/none.py",
        "rm -rf runs",
    ],
)
def test_a_wrong_line_is_found(line):
    with pytest.raises((AssertionError, SystemExit)) as found:
        check_command(shlex.split(line))
    assert getattr(found.value, "code", 2) == 2


# --- JSON ---------------------------------------------------------------------------------------


def whole_input(part: dict[str, Any]) -> dict[str, Any]:
    """Put a part of an input into the template that has a place for it."""
    if set(part) <= {"model", "loss", "learning_rate", "training"}:
        return merged(template("small/ft"), part)
    whole = template("small/mft")
    branches = part.get("model_dict", part)
    assert all("fitting_net" in one for one in branches.values()), f"what is {list(part)}?"
    aux = next(name for name in whole["model"]["model_dict"] if name != "property")
    for section in (
        whole["model"]["model_dict"],
        whole["loss_dict"],
        whole["training"]["data_dict"],
        whole["training"]["model_prob"],
    ):
        own = next((name for name in branches if name != "property"), aux)
        section[own] = section.pop(aux)
    whole["model"]["model_dict"] |= branches
    return whole


def template(name: str) -> dict[str, Any]:
    return dict(json.loads(template_names()[name].read_text()))


def merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return JSON with the values of a part; sections of another type are taken whole."""
    found = dict(whole)
    for key, value in part.items():
        old = found.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        same = both and value.get("type", old.get("type")) == old.get("type")
        found[key] = merged(old, value) if same else value
    return found


def check_json(text: str) -> None:
    part = json.loads(text if text.lstrip().startswith("{") else f"{{{text}}}")
    normalised(whole_input(part))


@of("json")
def test_json(snippet):
    check_json(snippet.text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"loss": {"type": "mft_property", "los_func": "mse"}', "los_func"),
        ('"learning_rate": {"type": "mft", "start_lr": "fast"}', "start_lr"),
        ('"property": {"type": "mft", "fitting_net": {"type": "mft_propert"}}', "mft_propert"),
        ('"head": {}', "fitting_net|what is"),
    ],
)
def test_wrong_json_is_found(text, words):
    with pytest.raises(Exception, match=words):
        check_json(text)


# --- Python -------------------------------------------------------------------------------------


def check_python(text: str) -> None:
    """Import what it imports, and bind the arguments of every call of that."""
    known: dict[str, Any] = {}
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for one in node.names:
                if not hasattr(module, one.name):
                    importlib.import_module(f"{node.module}.{one.name}")
                known[one.asname or one.name] = getattr(module, one.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (function := resolved(node.func, known)) is not None:
            keywords = {str(one.arg): None for one in node.keywords}
            inspect.signature(function).bind(*node.args, **keywords)


def resolved(node: ast.expr, known: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, known)
        return None if owner is None else getattr(owner, node.attr)
    return None


@of("python")
def test_python(snippet):
    check_python(snippet.text)


@pytest.mark.parametrize(
    "text",
    [
        "from deepmd_mft.splits import bom",
        "from deepmd_mft.splits import boom\nboom.boom(1, 2, target=3)",
        "from deepmd_mft.splits import boom\nboom.bom(1)",
    ],
)
def test_wrong_python_is_found(text):
    with pytest.raises((ImportError, TypeError, AttributeError)):
        check_python(text)


# --- links between pages ------------------------------------------------------------------------


def anchors_of(path: Any) -> set[str]:
    """Return what GitHub and the site call the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("path", dict.fromkeys(PAGES), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors_of(there), f"{target}: no such heading"


# --- the house ----------------------------------------------------------------------------------


def test_the_page_of_the_house_has_every_room():
    page = (ROOT / "docs" / "developer" / "house.md").read_text()
    rooms = {one.parent.name for one in (ROOT / "deepmd_mft").glob("*/__init__.py")}
    table = {name for line in page.splitlines() if line.startswith("| `")
             for name in re.findall(r"`(\w+)`", line.split("|")[1])}  # fmt: skip
    assert table == rooms
    for name in re.findall(r"`(\w+/\w+\.py)`", page):
        assert (ROOT / "deepmd_mft" / name).is_file(), name


def test_recipes_name_files_that_are_there():
    for start in ("models/heads/base", "training/losses/base", "training/regularizers/base",
                  "data/readers/__init__", "splits/registry"):  # fmt: skip
        path = ROOT / "deepmd_mft" / f"{start}.py"
        recipe = str(ast.get_docstring(ast.parse(path.read_text())))
        assert "How to add a" in recipe
        for name in re.findall(r"``((?:\w+/)+\w+\.py)``", recipe):
            assert (ROOT / name).is_file() or (ROOT / "deepmd_mft" / name).is_file(), name
