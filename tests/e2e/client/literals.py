"""The example of docs/packers.rst."""
# mypy: ignore-errors

import ast


class Literals:
    """Python's literals, for clients in Python: complex numbers among them."""

    name = "literals"
    content_type = "text/x-python-literal"
    binary = False

    def pack(self, value, /):
        return repr(plain(value))

    def unpack(self, data, /):
        return ast.literal_eval(data)


def plain(value):
    if isinstance(value, str):
        return str(value)  # keywords, which event ids are
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return value
