"""What the site prints from the code: the JSON options, the command line, the public functions."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, ClassVar

from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util.nodes import nested_parse_with_titles

import deepmd_mft
from deepmd_mft.cli.doc import reference
from deepmd_mft.cli.main import VERBS, build_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx


class Printed(Directive):
    """Parse the lines that a function returns."""

    source: ClassVar[str]

    def lines(self) -> Iterator[str]:
        """Return reStructuredText."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return the parsed text."""
        from docutils.nodes import section  # noqa: PLC0415

        parent = section()
        parent.document = self.state.document
        lines = [one for text in self.lines() for one in text.split("\n")]
        nested_parse_with_titles(self.state, StringList(lines, self.source), parent)
        return list(parent.children)


class JsonOptions(Printed):
    """``.. json-options::``: what ``dp-mft doc`` prints."""

    source = "dp-mft doc"

    def lines(self) -> Iterator[str]:
        """Return a section for each type."""
        for heading, text in reference().items():
            yield from _title(f"``{heading}``", "-")
            yield from (text, "")


class CommandLine(Printed):
    """``.. command-line::``: what ``dp-mft VERB --help`` prints."""

    source = "dp-mft --help"

    def lines(self) -> Iterator[str]:
        """Return a section for each verb."""
        for verb, parser in verb_parsers().items():
            yield from _title(f"``{verb}``", "-")
            said = parser.description or ""
            yield from (f"{said[:1].upper()}{said[1:]}.", "")
            actions = parser._actions  # noqa: SLF001  (argparse prints no other way)
            formatter = parser._get_formatter()  # noqa: SLF001
            yield from (".. code-block:: text", "", *_indented(usage(parser, actions)), "")
            for action in actions:
                if action.help in {None, argparse.SUPPRESS} or action.dest == "help":
                    continue
                name = formatter._format_action_invocation(action)  # noqa: SLF001
                yield from (f"``{name}``", *_indented(formatter._expand_help(action)), "")  # noqa: SLF001


class Recipes(Printed):
    """``.. recipes::``: what the docstring of each module says after "How to add"."""

    source = "How to add"
    required_arguments = 1
    optional_arguments = 99

    def lines(self) -> Iterator[str]:
        """Return a section for each module."""
        for module in self.arguments:
            text = importlib.import_module(module).__doc__ or ""
            yield from (text[text.index("How to add") :], "")


class PublicFunctions(Printed):
    """``.. public-functions::``: every name in an ``__all__``, by room."""

    source = "__all__"

    def lines(self) -> Iterator[str]:
        """Return a section for each module."""
        for room, modules in public_modules().items():
            yield from _title(f"``{room}``", "-")
            yield from (str(importlib.import_module(room).__doc__ or ""), "")
            for module, names in modules.items():
                yield from _title(f"``{module}``", "^")
                for name in names:
                    value = getattr(importlib.import_module(module), name)
                    kind = "class" if isinstance(value, type) else "function"
                    if callable(value) and value.__module__ == module:
                        yield from (f".. auto{kind}:: {module}.{name}", "")


def verb_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every verb, and of every question of ``analyze``."""
    return dict(_below(build_parser(VERBS)))


def _below(parser: argparse.ArgumentParser, above: str = "") -> Iterator[tuple[str, Any]]:
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, one in action.choices.items():
                yield f"{above}{name}", one
                yield from _below(one, f"{above}{name} ")


def usage(parser: argparse.ArgumentParser, actions: list[argparse.Action]) -> str:
    """Return the verb with what it must be given; the options follow it one by one."""
    needed = [one for one in actions if one.required]
    short = argparse.ArgumentParser(prog=parser.prog, add_help=False)
    short._actions = needed  # noqa: SLF001
    words = short.format_usage().removeprefix("usage: ").split()
    verb = parser.prog.split()
    return " ".join([*verb, "[options]", *words[len(verb) :]])


def public_modules() -> dict[str, dict[str, list[str]]]:
    """Return the modules with ``__all__``, and what is in it, by room."""
    rooms: dict[str, dict[str, list[str]]] = {}
    for found in pkgutil.walk_packages(deepmd_mft.__path__, "deepmd_mft."):
        if found.name.startswith(("deepmd_mft.cli", "deepmd_mft.__main__", "deepmd_mft.plugin")):
            continue
        names = getattr(importlib.import_module(found.name), "__all__", [])
        if names:
            room = ".".join(found.name.split(".")[:2])
            rooms.setdefault(room, {})[found.name] = list(names)
    return rooms


def _title(text: str, line: str) -> tuple[str, ...]:
    return text, line * len(text), ""


def _indented(text: str) -> list[str]:
    return ["    " + line for line in text.strip().splitlines()]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("json-options", JsonOptions)
    app.add_directive("command-line", CommandLine)
    app.add_directive("recipes", Recipes)
    app.add_directive("public-functions", PublicFunctions)
    return {"parallel_read_safe": True}
