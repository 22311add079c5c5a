"""Runs notebooks and keeps in them what their cells print, show and draw.

    python docs/notebooks/execute.py [NAME ...]

Cells run from top to bottom in one fresh process a notebook, in an empty folder. What the library logs is left out: it has times
and places of one machine. Paths of that folder become `FOLDER`.
"""

import ast
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOTS_PER_INCH = 72  # a picture of 12 x 6 inches has some 60 KB


def run_cell(source: str, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """A cell's outputs: what it printed, its last expression, its figures."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value, printed = None, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), scope)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), scope)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    drawn = figures()
    if value is not None and not drawn:
        data = {"text/plain": lines(repr(value))}
        outputs.append({"data": data, "execution_count": None, "metadata": {}, "output_type": "execute_result"})
    return outputs + drawn


def figures() -> list[dict[str, Any]]:
    """Open figures as pictures; they are closed."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    pyplot: Any = sys.modules["matplotlib.pyplot"]
    outputs = []
    for number in pyplot.get_fignums():
        picture = io.BytesIO()
        pyplot.figure(number).savefig(picture, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
        data = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": [f"<Figure {number}>"]}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    pyplot.close("all")
    return outputs


def lines(text: str) -> list[str]:
    """A text as notebooks keep it: without paths of this machine."""
    return text.replace(tempfile.gettempdir(), "FOLDER").splitlines(keepends=True)


def execute(file: Path) -> None:
    """Run a notebook in this process and the present folder, and write its outputs into it."""
    notebook = json.loads(file.read_text("utf-8"))
    scope: dict[str, Any] = {"__name__": "notebook"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(cells, start=1):
        cell["outputs"] = run_cell("".join(cell["source"]), scope)
        cell["execution_count"] = count
        for output in cell["outputs"]:
            if output["output_type"] == "execute_result":
                output["execution_count"] = count
    file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main(names: list[str]) -> int:
    """Run notebooks, each in a process and folder of its own; how many failed."""
    failed = 0
    for file in sorted(HERE.glob("*.ipynb")):
        if names and file.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "TMPDIR": folder, "MPLBACKEND": "agg", "COLUMNS": "120"}
            command = [sys.executable, str(Path(__file__).resolve()), "--here", str(file.resolve())]
            failed += subprocess.run(command, cwd=folder, env=environment).returncode != 0
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        execute(Path(sys.argv[2]))
    else:
        sys.exit(main(sys.argv[1:]))
