"""Pure functions on tensors, each with its formula, denominator and paper."""
