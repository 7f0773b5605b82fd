"""What keeps a process from beginning its work."""

from __future__ import annotations


class CannotStart(Exception):
    """The process can't run as it was told to; the message is one sentence for a person."""
