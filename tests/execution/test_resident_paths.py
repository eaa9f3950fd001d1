"""Where the resident engine has its socket and its log: in a folder of this user."""

from __future__ import annotations

from pathlib import Path

from delineate.execution import resident


def test_the_folder_is_that_of_the_session_or_of_the_cache(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert resident.folder() == "/run/user/7/delineate"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "not/absolute")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert resident.folder() == "/var/cache/me/delineate/engine"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert resident.folder() == "/home/me/.cache/delineate/engine"
    socket, log = Path(resident.socket_path()), Path(resident.log_path())
    assert socket.parent == log.parent == Path(resident.folder())
    assert (socket.suffix, log.suffix) == (".sock", ".log") and socket.stem == log.stem
