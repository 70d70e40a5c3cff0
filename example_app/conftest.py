"""What flask_chsk's fixture ``chsk_client`` wants: the plugin, and an ``app``."""

from __future__ import annotations

import pytest
from flask import Flask

from example_app import create_app

pytest_plugins = ["flask_chsk.testing"]


@pytest.fixture
def app() -> Flask:
    """An application of the test's own: nobody is connected, nothing was said."""
    return create_app(SECRET_KEY="only for tests", TESTING=True)
