"""Sphinx: the how-to pages and the API reference (`make docs`; warnings are errors)."""

project = "nbg_lightning"
author = "the nbg_lightning authors"
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_static_path: list[str] = []
exclude_patterns = ["_build", "notebooks/*.ipynb", "**/.ipynb_checkpoints"]

# One page a package, made from the docstrings anew at every build.
apidoc_modules = [
    {
        "path": "../nbg_lightning",
        "destination": "api",
        "follow_links": True,
        "separate_modules": True,
        "module_first": True,
        "exclude_patterns": ["../nbg_lightning/configs"],
    }
]
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "member-order": "bysource",
    "ignore-module-all": True,
}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False  # Lightning's own docstrings are Lightning's
autodoc_mock_imports = ["vllm", "flash_attn", "lm_eval"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # what "Attributes:" lists is documented there, and not a second time
default_role = "code"  # docstrings write `name` as Markdown does
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository, which are no pages
    "ref.python",  # annotations name classes without their module: of two of a name, one is linked
]
nitpicky = False
