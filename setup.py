"""What pip needs to know; tools are configured in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# Floors are tried, exactly: `make matrix`. None has a fault that is known to concern us
# (tests/integration/test_package.py), each has wheels for every Python that it is tried on.
extras = {
    "gunicorn": ["gunicorn[gevent]>=23.0"],
    "redis": ["redis>=5.0"],
    "client": ["urllib3>=2.6"],
    "prometheus": ["prometheus-client>=0.20"],
    "speedups": ["websockets>=13.0"],  # for its C mask: 64 KiB in 4 µs instead of 270
}
extras["all"] = [requirement for wanted in extras.values() for requirement in wanted]
extras["demo"] = extras["speedups"]
extras["bench"] = extras["all"]  # the others go into environments of their own
extras["docs"] = [*extras["all"], "furo>=2024.8.6", "sphinx>=8.0", "sphinx-copybutton>=0.5.2"]
extras["test"] = [
    *extras["docs"],
    "celery>=5.4",
    "flask-limiter>=3.8",
    "flask-login>=0.6.3",
    "flask-session>=0.8",
    "flask-sqlalchemy>=3.1",
    "flask-wtf>=1.2",
    "gunicorn[gevent]>=26.0",
    "hypothesis>=6.100",
    "lupa>=2.2",  # runs the scripts of the Redis broker in a model of Redis
    "msgpack>=1.1.0",  # another reader and writer, to compare ours with
    "opentelemetry-instrumentation-flask>=0.50b0",
    "opentelemetry-sdk>=1.29",
    "playwright>=1.50,<2",
    "pydantic>=2.7",
    "pytest>=9.0,<10",
    "pyyaml>=6.0",  # the Compose file of the documentation
    "twine>=6.0",
    "websocket-client>=1.8",
    "wsproto>=1.2",
]
extras["dev"] = [
    *extras["test"],
    "build>=1.2",
    "packaging>=24.0",  # floors of make matrix
    "mypy>=2.4,<2.5",  # new rules come with minor versions: step up on purpose
    "ruff>=0.17.6,<0.18",
    "setuptools>=65.5",
    "types-gevent>=26.4",
    "wheel>=0.43",
]

setup(
    name="Flask-Chsk",
    version="0.1.0",
    description="Channel sockets for Flask: events both ways over WebSocket or long-polling",
    long_description=Path(__file__).with_name("README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="the Flask-Chsk authors",
    url="https://flask-chsk.readthedocs.io/",
    project_urls={
        "Documentation": "https://flask-chsk.readthedocs.io/",
        "Changes": "https://flask-chsk.readthedocs.io/en/latest/changes.html",
    },
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["flask_chsk", "flask_chsk.*"]),
    package_data={
        "flask_chsk": [
            "py.typed",
            "static/*.js",
            "static/*.d.ts",
            "static/package.json",
        ]
    },
    install_requires=[
        "Flask>=3.1.1",
        "Werkzeug>=3.1.4",
        "gevent>=24.10.1",
        "gevent>=25.8.1; python_version >= '3.14'",
        "gevent-websocket>=0.10.1",
    ],
    extras_require=extras,
    entry_points={
        "flask.commands": ["chsk = flask_chsk.cli:commands"],
        "pyinstaller40": ["hook-dirs = flask_chsk.__pyinstaller:hook_dirs"],
    },
    zip_safe=False,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Web Environment",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP :: Dynamic Content",
        "Topic :: Internet :: WWW/HTTP :: WSGI",
        "Typing :: Typed",
    ],
)
