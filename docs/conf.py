"""Sphinx's settings: ``make docs``."""

project = "Flask-Chsk"
author = "the Flask-Chsk authors"
extensions = ["sphinx.ext.autodoc"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_static_path = []
