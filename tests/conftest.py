"""What every test run has in common."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadlines: two busy cores are not a property of the code.
settings.register_profile("default", deadline=None)
# The same examples in every run, so that a failure is the change's and not the day's.
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile(
    "fuzz", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Servers of one machine would share it, under the home directory.
os.environ.setdefault("GUNICORN_CMD_ARGS", "--no-control-socket")

pytest_plugins = ["pytester"]
