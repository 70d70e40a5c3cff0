"""Sphinx's settings: ``make docs``."""

import os

from flask_chsk import __version__ as release

project = "Flask-Chsk"
author = "the Flask-Chsk authors"
version = release
extensions = ["sphinx.ext.autodoc", "sphinx_copybutton"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
copybutton_exclude = ".linenos, .gp, .go"
default_role = "code"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Flask-Chsk {release}"
html_static_path = ["_static"]
html_js_files = ["accessible.js"]
html_copy_source = False
html_show_sourcelink = False

if os.environ.get("READTHEDOCS"):  # the inventories are on the network
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "flask": ("https://flask.palletsprojects.com/en/stable", None),
        "werkzeug": ("https://werkzeug.palletsprojects.com/en/stable", None),
        "gevent": ("https://www.gevent.org", None),
    }
