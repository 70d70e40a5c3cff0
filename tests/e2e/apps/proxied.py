"""The chat behind one proxy, whose word it takes."""

from __future__ import annotations

from werkzeug.middleware.proxy_fix import ProxyFix

from tests.e2e.apps.chat import app

app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_prefix=1)  # type: ignore[method-assign]
