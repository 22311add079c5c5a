"""Constructor arguments of classes, read from source code without importing; what cannot be determined is left open.

A class is followed through packages that re-export it, through aliases, and through ``**keywords`` to its bases. This
serves to reject a wrong name before torch is imported; the command's parser has the final say.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nbg_lightning import syntax

_WRAPPERS = {"Annotated", "ClassVar", "Final", "Optional", "Union"}
_LISTS = {"Iterable", "List", "Sequence", "list"}
_TUPLES = {"Tuple", "tuple"}
_MAPPINGS = {"Dict", "Mapping", "dict"}
_SCALARS = {"bool", "float", "int", "str"}
_NO_PARAMETERS = {"ABC", "Generic", "Protocol", "object"}
_DEEPEST = 20  # maximum steps of following a name or base


@dataclass(frozen=True)
class Definition:
    """The definition of a class or another object.

    Attributes:
        module: full name of its module.
        node: its statement.
    """

    module: str
    node: ast.stmt

    @property
    def is_class(self) -> bool:
        """Whether it is a class."""
        return isinstance(self.node, ast.ClassDef)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a constructor.

    Attributes:
        module: module in which its annotation is resolved.
        annotation: the annotation as written, or None.
    """

    module: str
    annotation: ast.expr | None


@dataclass(frozen=True)
class SourceSignature:
    """The constructor parameters of a class.

    Attributes:
        parameters: parameters by name.
        is_whole: there are no others; False if a base or keyword cannot be followed.
        is_data: a dataclass, which YAML gives as a mapping.
    """

    parameters: Mapping[str, Parameter]
    is_whole: bool = True
    is_data: bool = False


@dataclass(frozen=True)
class Kinds:
    """The types that an annotation allows.

    Attributes:
        classes: classes with a known definition.
        literals: literal texts.
        scalars: names of plain types, such as ``int``.
        elements: types of list elements.
        values: types of mapping values.
        is_whole: nothing else but None is allowed.
        is_optional: None is allowed.
    """

    classes: Sequence[Definition] = ()
    literals: Sequence[str] = ()
    scalars: Sequence[str] = ()
    elements: Sequence[Kinds] = ()
    values: Sequence[Kinds] = ()
    is_whole: bool = True
    is_optional: bool = False


# -- modules -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    name: str
    package: str
    names: dict[str, ast.stmt] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # name to (module, attribute)


def module_file(name: str) -> Path | None:
    """The source of a module, without importing it; None if there is none."""
    top, *rest = name.split(".")
    try:
        spec = sys.modules[top].__spec__ if top in sys.modules else importlib.util.find_spec(top)
        if spec is None and top not in sys.modules:
            importlib.invalidate_caches()  # its file may be newer than Python's cache of the folder
            spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        return Path(spec.origin) if not rest and spec.origin and spec.origin.endswith(".py") else None
    for location in spec.submodule_search_locations:
        path = Path(location, *rest)
        for file in (path.with_name(f"{path.name}.py") if rest else path / "__init__.py", path / "__init__.py"):
            if file.is_file():
                return file
    return None


_modules: dict[str, _Module] = {}  # found ones only: a missing file may be written later


def _module(name: str) -> _Module | None:
    if name not in _modules and (found := _read(name)) is not None:
        _modules[name] = found
    return _modules.get(name)


def _read(name: str) -> _Module | None:
    file = module_file(name)
    if file is None:
        return None
    try:
        tree = syntax.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    module = _Module(name, package)
    for node in _statements(tree.body):
        if isinstance(node, ast.ImportFrom):
            module.imports.update(_imported_from(node, package))
        elif isinstance(node, ast.Import):
            for each in node.names:
                module.imports[each.asname or each.name.partition(".")[0]] = (
                    each.name if each.asname else each.name.partition(".")[0],
                    None,
                )
        else:
            module.names.update(dict.fromkeys(_bound(node), node))
    return module


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, including those inside its ``if`` and ``try``."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from _statements([*node.body, *node.orelse])
        if isinstance(node, ast.Try):
            yield from _statements([each for handler in node.handlers for each in handler.body])


def _imported_from(node: ast.ImportFrom, package: str) -> dict[str, tuple[str, str | None]]:
    base = node.module or ""
    if node.level:
        parents = package.split(".")
        above = ".".join(parents[: len(parents) - node.level + 1])
        base = f"{above}.{base}" if base else above
    return {each.asname or each.name: (base, each.name) for each in node.names}


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return [node.name]
    targets: list[ast.expr] = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    found = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [each.id for each in found if isinstance(each, ast.Name)]


def names_of(module: str) -> list[str] | None:
    """Names that a module defines or imports; None without source."""
    found = _module(module)
    return None if found is None else [*found.names, *found.imports]


def find(path: str, depth: int = 0) -> Definition | None:
    """The definition of ``package.module.Name``; None if it cannot be determined.

    >>> find("nbg_lightning.SFTModule").module
    'nbg_lightning.modules.sft'
    """
    module_name, _, name = path.rpartition(".")
    module = _module(module_name) if module_name and depth < _DEEPEST else None
    if module is None:
        return None
    if name in module.names:
        return Definition(module_name, module.names[name])
    if name in module.imports:
        home, attribute = module.imports[name]
        return find(f"{home}.{attribute}", depth + 1) if attribute else None
    return None


def _resolve(expression: ast.expr, module: str) -> Definition | None:
    """The object that a name or a dotted name refers to in a module."""
    found = _module(module)
    if found is None:
        return None
    if isinstance(expression, ast.Name):
        return find(f"{module}.{expression.id}")
    parts: list[str] = []
    while isinstance(expression, ast.Attribute):
        parts.insert(0, expression.attr)
        expression = expression.value
    if not parts or not isinstance(expression, ast.Name) or expression.id not in found.imports:
        return None
    home, attribute = found.imports[expression.id]
    return find(".".join([home, *([attribute] if attribute else []), *parts]))


# -- constructors ----------------------------------------------------------------------------------------------------------


def signature(definition: Definition, depth: int = 0) -> SourceSignature:
    """The constructor parameters of a class; not whole if they cannot be determined completely.

    >>> sorted(signature(find("nbg_lightning.AdamWConfig")).parameters)[:2]
    ['algorithm', 'betas']
    """
    node = definition.node
    if not isinstance(node, ast.ClassDef) or depth > _DEEPEST:
        return SourceSignature({}, is_whole=False)
    decorators = {_last_name(each) for each in node.decorator_list}
    found = (_base(each, definition.module, depth) for each in node.bases)
    bases = [each for each in found if each is not None]
    if any(isinstance(each, ast.FunctionDef) and each.name == "__new__" for each in node.body):
        return SourceSignature({}, is_whole=False)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return _of_function(each, definition.module, bases)
    if "dataclass" in decorators:
        fields = {name: each for base in bases for name, each in base.parameters.items()}
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                fields[each.target.id] = Parameter(definition.module, each.annotation)
        return SourceSignature(fields, all(base.is_whole for base in bases), is_data=True)
    if len(bases) == 1:
        return bases[0]
    merged = {name: each for base in reversed(bases) for name, each in base.parameters.items()}
    return SourceSignature(merged, bool(bases) and all(base.is_whole for base in bases))


def _of_function(node: ast.FunctionDef, module: str, bases: Sequence[SourceSignature]) -> SourceSignature:
    arguments = node.args
    own = [*arguments.posonlyargs, *arguments.args][1:] + arguments.kwonlyargs
    parameters = {each.arg: Parameter(module, each.annotation) for each in own}
    if arguments.kwarg is None:
        return SourceSignature(parameters)
    inherited = {name: each for base in reversed(bases) for name, each in base.parameters.items()}
    return SourceSignature({**inherited, **parameters}, bool(bases) and all(base.is_whole for base in bases))


def _base(expression: ast.expr, module: str, depth: int) -> SourceSignature | None:
    """The signature of a base; None for one that has no parameters."""
    if isinstance(expression, ast.Subscript):
        expression = expression.value
    if _last_name(expression) in _NO_PARAMETERS:
        return None
    found = _resolve(expression, module)
    return SourceSignature({}, is_whole=False) if found is None else signature(found, depth + 1)


def _is_ellipsis(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Constant) and expression.value is ...


def _last_name(expression: ast.expr) -> str:
    if isinstance(expression, ast.Call):
        expression = expression.func
    return getattr(expression, "attr", getattr(expression, "id", ""))


def class_attribute(definition: Definition | None, name: str, depth: int = 0) -> Any:
    """The constant assigned to an attribute by a class or its bases; None if there is none."""
    if definition is None or not isinstance(definition.node, ast.ClassDef) or depth > _DEEPEST:
        return None
    for node in definition.node.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and name in _bound(node):
            return node.value.value if isinstance(node.value, ast.Constant) else None
    found = (class_attribute(_resolve(base, definition.module), name, depth + 1) for base in definition.node.bases)
    return next((each for each in found if each is not None), None)


def is_abstract(definition: Definition) -> bool:
    """Whether a class names ``ABC`` or ``Protocol`` as its base, or has a method without a body: a config gives a class below it.

    >>> is_abstract(find("nbg_lightning.data.Source")), is_abstract(find("nbg_lightning.data.JsonLines"))
    (True, False)
    """
    node = definition.node
    if not isinstance(node, ast.ClassDef):
        return False
    methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
    return not {"ABC", "Protocol"}.isdisjoint(map(_last_name, node.bases)) or any(
        "abstractmethod" in map(_last_name, each.decorator_list) for each in methods
    )


def is_mapping(definition: Definition) -> bool:
    """Whether a class is a dataclass by itself, which YAML gives as a mapping of its fields and never as another class.

    >>> is_mapping(find("nbg_lightning.engines.Sampling")), is_mapping(find("nbg_lightning.data.JsonLines"))
    (True, False)
    """
    node = definition.node
    return isinstance(node, ast.ClassDef) and not node.bases and signature(definition).is_data


# -- annotations -----------------------------------------------------------------------------------------------------------


def kinds(parameter: Parameter, depth: int = 0) -> Kinds:
    """The types that a parameter's annotation allows."""
    annotation = parameter.annotation
    if annotation is None or depth > _DEEPEST:
        return Kinds(is_whole=False)
    if isinstance(annotation, ast.Constant):
        if isinstance(annotation.value, str):
            try:
                text = syntax.parse(annotation.value, mode="eval").body
            except SyntaxError:
                return Kinds(is_whole=False)
            return kinds(Parameter(parameter.module, text), depth + 1)
        return Kinds(is_whole=annotation.value is None, is_optional=annotation.value is None)

    def of(*expressions: ast.expr) -> Kinds:
        each = [kinds(Parameter(parameter.module, expression), depth + 1) for expression in expressions]
        return Kinds(
            classes=[found for kind in each for found in kind.classes],
            literals=[found for kind in each for found in kind.literals],
            scalars=[found for kind in each for found in kind.scalars],
            elements=[found for kind in each for found in kind.elements],
            values=[found for kind in each for found in kind.values],
            is_whole=all(kind.is_whole for kind in each),
            is_optional=any(kind.is_optional for kind in each),
        )

    if isinstance(annotation, ast.BinOp):
        return of(annotation.left, annotation.right)
    if isinstance(annotation, ast.Subscript):
        name = _last_name(annotation.value)
        inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if name == "Literal":
            literals = [each.value for each in inside if isinstance(each, ast.Constant)]
            texts = [each for each in literals if isinstance(each, str)]
            return Kinds(literals=texts, is_whole=len(texts) == len(inside))
        if name in _WRAPPERS:
            found_kinds = of(*(inside[:1] if name == "Annotated" else inside))
            return replace(found_kinds, is_optional=found_kinds.is_optional or name == "Optional")
        if name in _LISTS:
            return Kinds(elements=[of(inside[0])])
        if name in _TUPLES:
            return Kinds(elements=[of(*(each for each in inside if not _is_ellipsis(each)))])
        if name in _MAPPINGS and len(inside) == 2:
            return Kinds(values=[of(inside[1])])
        return Kinds(is_whole=False)
    found = _resolve(annotation, parameter.module)
    if found is None:
        name = annotation.id if isinstance(annotation, ast.Name) else ""
        return Kinds(scalars=[name]) if name in _SCALARS else Kinds(is_whole=False)
    if isinstance(found.node, (ast.Assign, ast.AnnAssign)) and found.node.value is not None:
        return kinds(Parameter(found.module, found.node.value), depth + 1)
    is_named = found.is_class and found.module not in ("typing", "typing_extensions")  # Any is a class there
    return Kinds([found]) if is_named else Kinds(is_whole=False)
