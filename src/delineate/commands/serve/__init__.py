"""Serve: the resident engine, which runs ``predict`` for other processes of its user.

server.py  the socket, one call after another     calls.py  a call, and this process in its place
"""

from .server import Resident, decline, keep_for, serve, status, stop

__all__ = ["Resident", "decline", "keep_for", "serve", "status", "stop"]
