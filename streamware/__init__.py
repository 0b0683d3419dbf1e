"""Streamed, measured, resumable ZIP and TAR downloads from any WSGI or ASGI app."""

from streamware.errors import StreamwareError
from streamware.filestore import FileStore
from streamware.model import Bundle, Member
from streamware.policy import Policy
from streamware.reply import Conditions, Reply
from streamware.service import Archiver

__all__ = ["Archiver", "Bundle", "Conditions", "FileStore", "Member", "Policy", "Reply", "StreamwareError"]
