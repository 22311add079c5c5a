"""Runs in the sandbox: the values of an expression at some points, written as JSON. Whatever the text does, it does there."""

from __future__ import annotations

import json
import re
import sys
import zlib

POINTS = (0.6180339887498949, 2.4142135623730951, -1.2720196495140690, 0.0, 0.7071067811865475 + 0.5j, -0.3 - 1.1j)
"""Positive, negative, zero and complex, and else nothing special about them."""


def value_of(name: str, point: complex) -> complex:
    """What a symbol is worth at a point: another number for each name, the same in all expressions, of the point's sign."""
    return point * (1 + zlib.crc32(name.encode()) % 9973 / 9973)


def as_python(text: str) -> str:
    """LaTeX as what sympy parses; text without LaTeX stays as it is."""
    for layout in ("\\left", "\\right", "\\displaystyle", "$"):
        text = text.replace(layout, "")
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    braced = r"\{([^{}]*)\}"
    while True:  # from the inside outwards
        before = text
        text = re.sub(r"\\frac\s*" + braced + r"\s*" + braced, r"((\1)/(\2))", text)
        text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"((\1)/(\2))", text)
        text = re.sub(r"\\sqrt\s*\[([^\[\]]*)\]\s*" + braced, r"((\2)**(1/(\1)))", text)
        text = re.sub(r"\\sqrt\s*" + braced, r"sqrt(\1)", text)
        text = re.sub(r"\\(?:text|mathrm|operatorname)\s*" + braced, r"\1", text)
        text = re.sub(r"\^\s*" + braced, r"**(\1)", text)
        if text == before:
            break
    for latex, python in (("\\cdot", "*"), ("\\times", "*"), ("\\div", "/"), ("\\infty", "oo"), ("\\ln", "log")):
        text = text.replace(latex, python)
    text = re.sub(r"\\([A-Za-z]+)", r" \1 ", text)
    return text.replace("{", "(").replace("}", ")").strip()


def values(text: str) -> list[list[list[float]]]:
    """For each part of the expression its values at the points, as real and imaginary part; NaN where it has none.

    Raises:
        Exception: of any kind: it is not an expression, or has no value.
    """
    from sympy import Expr, Tuple, sympify
    from sympy.parsing import sympy_parser

    how = (
        *sympy_parser.standard_transformations,
        sympy_parser.implicit_multiplication_application,
        sympy_parser.convert_xor,
        sympy_parser.factorial_notation,
    )
    side = re.fullmatch(r"\s*[A-Za-z]\w*\s*=([^=]+)", text)
    parsed = sympify(sympy_parser.parse_expr(as_python(side.group(1) if side else text), transformations=how))
    parts = list(parsed) if isinstance(parsed, Tuple) else [parsed]
    found = []
    for part in parts:
        if not isinstance(part, Expr):
            raise ValueError(f"{part} is no expression")
        at = []
        for point in POINTS:
            try:
                there = part.evalf(20, subs={name: value_of(str(name), point) for name in part.free_symbols})
                value = complex(there) if there.is_finite else complex("nan+nanj")
            except ZeroDivisionError:
                value = complex("nan+nanj")
            at.append([value.real, value.imag])
        found.append(at)
    return found


if __name__ == "__main__":
    print(json.dumps(values(sys.stdin.read())))
