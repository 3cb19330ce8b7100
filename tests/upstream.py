"""Find what our code relies on in a library, from our source and the library's."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from inspect import Parameter, Signature
from itertools import repeat
from pathlib import Path
from pydoc import locate
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class OurClass:
    """A class of ours, at the top of a file or inside a function; `library` holds its bases in the library."""

    file: Path
    node: ast.ClassDef
    library: tuple[type, ...]
    ours: tuple[OurClass, ...]

    @property
    def methods(self) -> list[ast.FunctionDef]:
        return [node for node in self.node.body if isinstance(node, ast.FunctionDef)]

    @property
    def names(self) -> set[str]:
        """Names that the class, or one of our bases of it, defines or sets."""
        own = {node.name for node in self.methods} | {name for name, stored in _attributes(self.node) if stored}
        own |= {ast.unparse(node.target) for node in self.node.body if isinstance(node, ast.AnnAssign)}
        return own.union(*(base.names for base in self.ours))


def our_classes(package: Path, libraries: tuple[str, ...]) -> list[OurClass]:
    """Return all classes in a package that derive, directly or not, from a class of the libraries."""
    nodes: dict[str, tuple[Path, ast.ClassDef, dict[str, str]]] = {}
    for file, tree in trees(package):
        module = ".".join(file.relative_to(package.parent).with_suffix("").parts)
        known = {name: full for full, name in imports(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                nodes[f"{module}.{node.name}"] = file, node, known

    def derived(full: str) -> OurClass:
        file, node, known = nodes[full]
        library: list[type] = []
        ours: list[OurClass] = []
        for base in node.bases:
            first, dot, rest = ast.unparse(base).partition(".")
            name = known.get(first, f"{full.rpartition('.')[0]}.{first}") + dot + rest
            if name.split(".")[0] in libraries:
                library.append(here(name))
            elif name in nodes:
                ours.append(derived(name))
                library += ours[-1].library
        return OurClass(file, node, tuple(library), tuple(ours))

    return [ours for ours in map(derived, nodes) if ours.library]


def trees(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(package.rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield everything that a file imports, at the top or lazily: its full name, and its name in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name if alias.asname else alias.name.split(".")[0], alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names)


def here(name: str) -> Any:
    """Return the object with a full name. Raises LookupError where the installed library has none."""
    thing = locate(name)
    if thing is None:
        raise LookupError(f"{name}: not in the installed version")
    return thing


# --- Overrides ---


def complaints(ours: OurClass, own: set[str]) -> list[str]:
    """List what does not fit the library's class: methods it lacks or calls differently, attributes it lacks.

    `own` are our methods, as "Class.method", that override nothing.
    """
    problems = []
    for node in ours.methods:
        label = f"{ours.node.name}.{node.name}"
        if label in own:
            continue
        theirs = [getattr(base, node.name) for base in ours.library if hasattr(base, node.name)]
        if not theirs:
            problems.append(f"{label}: {ours.library[0].__name__} has no such method")
        elif fault := mismatch(_signature(node), inspect.signature(theirs[0])):
            problems.append(f"{label}: {fault}")
    for name in {name for name, _ in _attributes(ours.node, "self")} - ours.names:
        if not any(has(base, name) for base in ours.library):
            problems.append(f"{ours.node.name}: {ours.library[0].__name__} has no {name!r}")
    return sorted(problems)


def _signature(node: ast.FunctionDef) -> Signature:
    def parameter(argument: ast.arg, kind: Any, default: Any = None) -> Parameter:
        return Parameter(argument.arg, kind, default=Parameter.empty if default is None else ...)

    given = node.args
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + given.defaults
    parameters = [parameter(*pair) for pair in zip(plain, repeat(Parameter.POSITIONAL_OR_KEYWORD), defaults)]
    parameters += [parameter(given.vararg, Parameter.VAR_POSITIONAL)] if given.vararg else []
    parameters += [
        parameter(*pair) for pair in zip(given.kwonlyargs, repeat(Parameter.KEYWORD_ONLY), given.kw_defaults)
    ]
    parameters += [parameter(given.kwarg, Parameter.VAR_KEYWORD)] if given.kwarg else []
    return Signature(parameters)


def mismatch(ours: Signature, theirs: Signature) -> str | None:
    """Say why ours cannot take the calls that theirs takes: all by position, all by name, required ones alone."""
    values = list(theirs.parameters.values())
    plain = [one for one in values if one.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    words = {one.name: one.name for one in values if one.kind is Parameter.KEYWORD_ONLY}
    if any(one.kind is Parameter.VAR_KEYWORD for one in values):
        words["any_other"] = "any_other"
    more = ["any_other"] * any(one.kind is Parameter.VAR_POSITIONAL for one in values)
    first, *others = [one.name for one in plain]
    needed = [one.name for one in plain[1:] if one.default is Parameter.empty]
    for arguments, keywords in (
        ([first, *others, *more], words),
        ([first], {**dict.fromkeys(others), **words}),
        ([first, *needed], {}),
    ):
        try:
            bound = ours.bind(*arguments, **keywords).arguments
        except TypeError as error:
            return f"{error}; takes {ours}, theirs {theirs}"
        if wrong := [name for name, value in bound.items() if isinstance(value, str) and value not in (name, first)]:
            return f"{wrong[0]!r} is {bound[wrong[0]]!r} of theirs; takes {ours}, theirs {theirs}"
    return None


@contextmanager
def recorded(package: Path) -> Iterator[set[tuple[str, int]]]:
    """Record the functions of a package that code outside it calls, as (file, line of the definition).

    For a method called through `super()` in an override, the override's caller counts.
    """
    inside = f"{package}/"
    seen: set[tuple[str, int]] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(inside):
            caller = frame.f_back
            while caller and caller.f_code.co_name == code.co_name and caller.f_code.co_filename.startswith(inside):
                caller = caller.f_back
            if caller and not caller.f_code.co_filename.startswith(inside):
                seen.add((code.co_filename, code.co_firstlineno))

    before = sys.getprofile()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        threading.setprofile(before)


# --- Attributes ---


def has(owner: Any, name: str) -> bool:
    """Return whether a class or module has an attribute, or code in its file sets it on an object."""
    return hasattr(owner, name) or any((name, True) in _code(one) for one in (owner, inspect.getmodule(owner)))


def looks_at(owner: Any, name: str) -> bool:
    """Return whether the code of a class or function reads such an attribute, or a module's code such a global."""
    if inspect.ismodule(owner):
        return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(_tree(owner)))
    return (name, False) in _code(owner)


@cache
def _code(owner: Any) -> frozenset[tuple[str, bool]]:
    """Return the attributes used by a module, a function, or a class and its bases, and whether they are set."""
    sources = inspect.getmro(owner) if inspect.isclass(owner) else [owner]
    return frozenset(attribute for source in sources for attribute in _attributes(_tree(source)))


def _tree(source: Any) -> ast.Module:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(source)))
    except (OSError, TypeError):  # not written in Python
        return ast.parse("")


def _attributes(tree: ast.AST, of: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the names of attributes, only of the object `of` if given, and whether they are set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (not of or ast.unparse(node.value) == of):
            yield node.attr, isinstance(node.ctx, ast.Store)


def private(ours: OurClass, own: set[str]) -> set[str]:
    """Return the library's private names that our class overrides or accesses on `self`, minus `own` methods."""
    overridden = {node.name for node in ours.methods if f"{ours.node.name}.{node.name}" not in own}
    asked = {name for name, _ in _attributes(ours.node, "self")} - ours.names
    return {name for name in overridden | asked if re.match("_[a-zA-Z]", name)}


def identifiers(package: Path) -> set[str]:
    """Return the names of all attributes, functions and keyword arguments in the code."""
    nodes = [node for _, tree in trees(package) for node in ast.walk(tree)]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return names | {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}


def changes(package: Path, library: str) -> Iterator[tuple[Path, str]]:
    """Yield what derives from a class of the library, gives an object another class, or sets what was imported."""
    for ours in our_classes(package, (library,)):
        if len(ours.library) > sum(len(base.library) for base in ours.ours):
            yield ours.file, ours.node.name
    for file, tree in trees(package):
        theirs = {name for full, name in imports(tree) if full.split(".")[0] == library}
        for node in ast.walk(tree):
            target: ast.AST | None = None
            if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
                target = node
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
                target = node.args[0]
            if target is None:
                continue
            root = re.split(r"[.\[]", ast.unparse(target))[0]
            if root in theirs or (isinstance(node, ast.Attribute) and node.attr == "__class__"):
                yield file, ast.unparse(node)


def private_names(package: Path) -> Iterator[tuple[str, str]]:
    """Yield private attributes of objects other than `self`, and private imports: the name, and its place."""
    for file, tree in trees(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and not ast.unparse(node.value).startswith(("self", "cls", "super()")):
                names = [node.attr]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            yield from (
                (name, f"{file.name}:{getattr(node, 'lineno', 0)}") for name in names if re.match("_[a-zA-Z]", name)
            )
