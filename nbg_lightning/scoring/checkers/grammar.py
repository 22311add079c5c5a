"""Python text that may be evaluated for an answer: expressions of numbers, texts, names, and known functions.

Checkers pass answers to ``eval`` and sympy's ``parse_expr``. Numbers, operators, sequences and mathematical functions are
answers; attributes, comprehensions, lambdas, statements, and calls of anything else are programs.
"""

from __future__ import annotations

import ast

# Complete texts that sympy's own parser evaluates.
TRUSTED = frozenset({"from sympy import *"})

# Replacements by sympy's parser for numbers, names and operators.
_CONSTRUCTORS = """
Symbol Integer Float Rational Function Add Mul Pow Mod Not And Or Xor Eq Ne Lt Le Gt Ge Equality Unequality
StrictLessThan LessThan StrictGreaterThan GreaterThan
"""
_FUNCTIONS = """
abs Abs sign sqrt cbrt root real_root exp log ln LambertW Max Min max min round float int complex floor ceiling frac
re im arg conjugate
sin cos tan cot sec csc sinc asin acos atan acot asec acsc atan2 sinh cosh tanh coth sech csch asinh acosh atanh acoth
asech acsch factorial factorial2 subfactorial binomial gamma loggamma beta digamma zeta fibonacci lucas catalan bernoulli
harmonic erf erfc erfi erfinv Ei E1 expint li Li Si Ci Shi Chi fresnels fresnelc polylog lerchphi uppergamma lowergamma
besselj bessely besseli besselk airyai airybi hyper meijerg legendre chebyshevt chebyshevu hermite laguerre
elliptic_k elliptic_f elliptic_e elliptic_pi Heaviside DiracDelta Piecewise gcd lcm igcd ilcm
"""
CALLABLE = frozenset((_CONSTRUCTORS + _FUNCTIONS).split())

_DATA = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Subscript, ast.Slice,
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_CONTAINERS = (ast.List, ast.Tuple, ast.Set, ast.Dict)


def refusal(source: object, sequences: bool = True) -> str | None:
    """The reason why a text (or its tree) must not be evaluated; None if it may, or if it is not Python at all.

    Args:
        source: the text, as for ``compile``.
        sequences: allow texts and containers as operands (``[0] * 8``), not only numbers.

    Example:
        >>> refusal("(3 + 4) * sqrt(2)")
        >>> refusal("().__class__")
        "'__class__' is an attribute"
        >>> refusal("system('id')")
        "'system' is not a function of mathematics"
        >>> refusal("[0] * 10 ** 12", sequences=False)
        'its operand is no number (List)'
    """
    if isinstance(source, ast.AST):
        return _tree_refusal(source, sequences)
    text = source.decode("utf-8", "replace") if isinstance(source, (bytes, bytearray)) else str(source)
    if text in TRUSTED:
        return None
    text = text.strip()
    try:
        return _tree_refusal(ast.parse(text, mode="eval"), sequences)
    except (SyntaxError, ValueError):  # also for characters that source code cannot contain
        pass
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):
        return None
    return _tree_refusal(statements[0], sequences) if statements else None


def _tree_refusal(tree: ast.AST, sequences: bool) -> str | None:
    reasons = (_node_refusal(node, sequences) for node in ast.walk(tree))
    return next((reason for reason in reasons if reason is not None), None)


def _node_refusal(node: ast.AST, sequences: bool) -> str | None:
    if isinstance(node, ast.Attribute):
        return f"{node.attr[:40]!r} is an attribute"
    if not isinstance(node, _DATA):
        return f"it is Python code ({type(node).__name__})"
    if not sequences and isinstance(node, ast.BinOp) and (reason := _operand_refusal(node)) is not None:
        return reason
    if isinstance(node, ast.Name) and node.id.startswith("_") and node.id.strip("_"):
        return f"{node.id[:40]!r} is a name of Python's own"
    if isinstance(node, ast.keyword) and node.arg != "evaluate":
        return f"{str(node.arg)[:40]!r} is a keyword argument"
    return _call_refusal(node) if isinstance(node, ast.Call) else None


def _operand_refusal(operation: ast.BinOp) -> str | None:
    for operand in (operation.left, operation.right):
        is_text = isinstance(operand, ast.Constant) and isinstance(operand.value, (str, bytes))
        if is_text or isinstance(operand, _CONTAINERS):
            return f"its operand is no number ({type(operand).__name__})"
    return None


def _call_refusal(call: ast.Call) -> str | None:
    function = call.func
    if isinstance(function, ast.Name):
        return None if function.id in CALLABLE else f"{function.id[:40]!r} is not a function of mathematics"
    made = isinstance(function, ast.Call) and isinstance(function.func, ast.Name) and function.func.id == "Function"
    return None if made else "it calls the result of an expression"
