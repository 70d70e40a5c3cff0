"""The Flask layer: the endpoint, its hooks, and the contexts of handlers."""
