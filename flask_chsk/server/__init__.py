"""One worker process: its clients, their events, and what it sends to them."""
