"""How Sphinx builds this documentation; there is nothing to fetch from anywhere."""

project = "serverwamp"
author = "The serverwamp developers"
copyright = f"2026, {author}"
version = "3.0"
release = "3.0.0"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
exclude_patterns = ["_build"]
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r".*"),  # in docstrings, `name` may be a parameter
    ("py:.*", r"(typing|collections|contextlib|re|anyio|datetime|abc|os|ssl)\..*"),  # elsewhere
    ("py:.*", r"(Any|ASGIApplication|ErrorMapping|Function|Lifespan|TypeAliasForwardRef)"),
    # internal modules
    ("py:class", r"serverwamp\.(backplanes|router|routing|migration|realm|session)\..*"),
]

html_theme = "furo"
html_title = "serverwamp"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("ASGIApplication", "ErrorMapping")}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
