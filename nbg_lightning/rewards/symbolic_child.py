"""Runs in the sandbox: the values of an expression at some points, written as JSON. Whatever the text does, it does there."""

from __future__ import annotations

import json
import re
import sys

POINTS = (0.6180339887498949, 1.2720196495140690, 2.4142135623730951)  # positive and nothing special about them


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


def values(text: str) -> list:
    """For each part of the expression the names in it and its values, as real and imaginary part.

    Raises:
        Exception: of any kind: it is no expression, or has no value.
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
        names = sorted(part.free_symbols, key=str)
        at = []
        for shift in range(len(POINTS)):
            put = {name: POINTS[(shift + index) % len(POINTS)] + index for index, name in enumerate(names)}
            value = complex(part.evalf(20, subs=put))
            at.append([value.real, value.imag])
        found.append([[str(name) for name in names], at])
    return found


if __name__ == "__main__":
    print(json.dumps(values(sys.stdin.read())))
