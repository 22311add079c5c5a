"""Fast rejection of wrong integrals at one point: the tasks' own checkers simplify, which takes ten times longer."""

from __future__ import annotations

from typing import Any

_DIGITS = 30  # digits of each side that sympy guarantees
_CERTAIN = 1e-6  # relative to the larger side


def differs(answer: str, metadata: dict[str, Any]) -> bool:
    """Whether the derivative of an answer differs from the integrand at some value of the variable.

    If so, no simplification can make their difference zero. False is inconclusive: they may be equal, or undefined there.

    Args:
        answer: an expression allowed by the grammar.
        metadata: metadata of a task's entry: ``variable`` and ``integrand``.

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
    except Exception:  # caused by the answer: left to the checker
        return False
    return abs(one - other) > _CERTAIN * max(abs(one), abs(other))
