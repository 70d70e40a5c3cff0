"""The broker of many workers and hosts, over one Redis."""
