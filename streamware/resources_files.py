"""What the Falcon resources of the file service share, in each flavour; they are themselves in ``resources``.

The rule of this file: it translates. A request becomes a FileRequest, its body the blocks that an Intake takes, and the
Reply a Falcon response; what is answered is decided in ``file_service``.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary, ref

from streamware.body_in import Draining, blocks
from streamware.edge import AsyncBody, Message, run
from streamware.edge_uploads import Refused, answered
from streamware.errors import StreamwareError
from streamware.file_request import FileRequest
from streamware.file_service import FileService
from streamware.hosting import closes_when_told
from streamware.intake import take
from streamware.reply import Reply
from streamware.resources_base import AsgiRequest, Resource, Response, WsgiRequest, begin, receive_of, sends_body
from streamware.semantics import parse_length
from streamware.service import Archiver

__all__ = ["AsgiFiles", "WsgiFiles"]

_BRINGING = ("POST", "PATCH")  # the methods that have a body here
_SETTLING = ("HEAD", "DELETE")  # those that may wait for what an upload has brought to be written

# The resources of one archiver count and limit together.
_services: WeakKeyDictionary[Archiver, dict[bool, FileService]] = WeakKeyDictionary()
_services_lock = threading.Lock()


def _file_service(archiver: Archiver, tus_only: bool) -> FileService:
    if archiver.files is None:
        raise ValueError("this resource needs an Archiver(files=FileStore(...))")
    known = ref(archiver)  # else what is kept for the archiver would keep it

    def problem(error: StreamwareError) -> Reply:
        archiver = known()
        assert archiver is not None, "the resource that asks holds it"
        return archiver.problem(error)

    with _services_lock:
        services = _services.setdefault(archiver, {})
        if tus_only not in services:
            services[tus_only] = FileService(archiver.files, problem, tus_only=tus_only)
        return services[tus_only]


class WsgiFiles(Resource):
    """Has requests for stored files answered, on ``falcon.App``."""

    _tus_only = False

    def __init__(self, archiver: Archiver) -> None:
        super().__init__(archiver)
        self._service = _file_service(archiver, self._tus_only)

    def _answer(self, req: WsgiRequest, resp: Response, id: str | None) -> None:
        self._meet(req.env)
        policy = self.archiver.policy
        request = FileRequest.from_environ(req.env, id=id, client_header=policy.client_header)
        found = self._service.ask(request)
        reply = found if isinstance(found, Reply) else take(found, blocks(req.env, policy=policy))
        begin(req, resp, reply)
        if not sends_body(req, reply):
            reply.body.close()
        if request.ambiguous and closes_when_told(req.env):
            resp.set_header("Connection", "close")
        resp.stream = reply.body
        if req.method in _BRINGING:
            resp.stream = Draining(reply.body, req.env, policy=policy, ends=request.ambiguous)


class AsgiFiles(Resource):
    """Has requests for stored files answered, on ``falcon.asgi.App``."""

    _tus_only = False

    def __init__(self, archiver: Archiver) -> None:
        super().__init__(archiver)
        self._service = _file_service(archiver, self._tus_only)

    async def _answer(self, req: AsgiRequest, resp: Response, id: str | None) -> None:
        self._meet(req.scope)
        request = FileRequest.from_scope(req.scope, id=id, client_header=self.archiver.policy.client_header)
        if req.method not in _BRINGING:
            reply = await self._asked(req, request)
            begin(req, resp, reply)
            sent = sends_body(req, reply)
            resp.stream = stream = AsyncBody(self.archiver, reply.body, receive=receive_of(req) if sent else None)
            if not sent:
                await stream.close()
            return
        receive, first = receive_of(req), getattr(req, "_first_event", None)
        if receive is None:
            receive, first = partial(_read, req), None
            request = replace(request, untold="this version of Falcon does not tell that a client has left")
        length = parse_length(request.header("content-length"))
        ask = partial(self._service.ask, request)
        reply, whole = await answered(self.archiver, ask, receive, first, length)
        begin(req, resp, reply)
        resp.stream = stream = (
            AsyncBody(self.archiver, reply.body) if whole else Refused(self.archiver, reply.body, receive)
        )
        if (request.ambiguous or not whole) and closes_when_told(req.scope):
            # Else servers would read the rest, however long it is, to find the next request behind it.
            resp.set_header("Connection", "close")
        if not sends_body(req, reply):
            await stream.close()

    async def _asked(self, req: AsgiRequest, request: FileRequest) -> Reply:
        """The answer to a request that brings nothing; none that waits for a store does so on a thread of downloads."""
        ask = partial(self._service.ask, request)
        if req.method in _SETTLING:
            return (await answered(self.archiver, ask, partial(_read, req)))[0]
        found = await run(self.archiver, ask)
        assert isinstance(found, Reply), "nothing but an upload has a body"
        return found


async def _read(req: AsgiRequest) -> Message:
    """The next message of a body, where the request's own ``receive()`` is hidden."""
    block = await req.stream.read(64 * 1024)
    return {"type": "http.request", "body": block, "more_body": bool(block)}
