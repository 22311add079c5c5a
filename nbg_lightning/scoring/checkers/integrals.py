"""Whether an answer is certainly no integral, by one point: the tasks' own checkers simplify, which takes ten times as long."""

from __future__ import annotations

from typing import Any

_DIGITS = 30  # of each side, which sympy makes sure of
_CERTAIN = 1e-6  # of the larger side


def differs(answer: str, metadata: dict[str, Any]) -> bool:
    """Whether the derivative of an answer has another value than the integrand at a point of the variable.

    Then no simplification makes their difference zero. False says nothing: they may be equal, or have no value there.

    Args:
        answer: an expression that the grammar allows.
        metadata: of a task's entry: ``variable`` and ``integrand``.

    Example:
        >>> differs("x**2 + C", {"variable": "x", "integrand": "3*x"})
        True
        >>> differs("3*x**2/2 + C", {"variable": "x", "integrand": "3*x"})
        False
    """
    import sympy

    variable = sympy.Symbol(metadata["variable"])
    place = {variable: sympy.Rational(7, 5)}
    names = {metadata["variable"]: variable}
    try:
        derivative = sympy.diff(sympy.parse_expr(answer, local_dict={**names, "C": sympy.Symbol("C")}), variable)
        integrand = sympy.parse_expr(metadata["integrand"], local_dict=names)
        if derivative.has(sympy.Integral, sympy.Derivative) or integrand.has(sympy.Integral, sympy.Derivative):
            return False
        one, other = (complex(side.evalf(_DIGITS, subs=place)) for side in (derivative, integrand))
    except Exception:  # of the answer's making: the checker judges it
        return False
    return abs(one - other) > _CERTAIN * max(abs(one), abs(other))
