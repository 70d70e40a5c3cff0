"""How bytes travel between a client and this process: sockets and requests."""
