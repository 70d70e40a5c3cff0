"""An application with a channel socket, for tests of what surrounds its handlers."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_chsk import Chsk
from flask_chsk.web.readonly import rate_limited


@pytest.fixture(autouse=True)
def _each_warning_is_new() -> None:
    rate_limited._kinds.clear()


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"
    return app


@pytest.fixture
def chsk(app: Flask) -> Chsk:
    return Chsk(app)
