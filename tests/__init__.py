import os

# Before the package is imported, here and in each process that a test starts: methods that are
# marked with `hub.on_hub` assert that they are called on the owning thread.
os.environ.setdefault("FLASK_CHSK_CHECK_HUB", "1")
