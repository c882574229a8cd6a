"""The routes under `sage-nb/`. Each needs Jupyter's login, and may be read or executed as its authorizer says;
those with an effect also its check against other sites."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import msgspec
from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import ensure_async
from nbformat.v4 import new_code_cell, new_notebook
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

import sage_nb
from sage_nb.errors import JobNotFoundError, ServerError
from sage_nb_jupyter.access import may
from sage_nb_jupyter.hub import Hub, Op
from sage_nb_jupyter.pages import Page, listing
from sage_nb_jupyter.proxy import Proxy
from sage_nb_jupyter.wire import UNREADABLE

__all__ = ["handlers"]

_STATIC = Path(sage_nb.__file__).parent / "notebook" / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_MESSAGE = 64 * 1024
_NOT_UNDERSTOOD, _FAILED = 1007, 1011


def handlers() -> list[tuple[str, type[web.RequestHandler]]]:
    """Patterns, relative to Jupyter's base URL, and what answers there."""
    job = r"(?P<uuid>[^/]+)"
    return [
        (r"sage-nb/jobs", _Jobs),
        (rf"sage-nb/jobs/{job}", _Job),
        (rf"sage-nb/jobs/{job}/bundle", _Bundle),
        (rf"sage-nb/jobs/{job}/logs", _Logs),
        (rf"sage-nb/jobs/{job}/notebook", _Notebook),
        (rf"sage-nb/jobs/{job}/(?P<op>stop|pause|resume)", _Order),
        (r"sage-nb/server", _Server),
        (r"sage-nb/server/start", _Start),
        (r"sage-nb/static/(?P<name>[a-z]+\.(?:js|css))", _Static),
        (r"sage-nb/live", _Live),
        (r"sage-nb/jobmanager/(?P<path>.*)", Proxy),
    ]


class _Answers(APIHandler):
    """What all of them share."""

    @property
    def hub(self) -> Hub:
        return cast(Hub, self.settings["sage_nb_hub"])

    def answer(self, data: Any, status: int = 200) -> None:
        """End with `data` as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(data))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors of ours are a sentence each."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, JobNotFoundError):
            self.answer({"message": str(error)}, HTTPStatus.NOT_FOUND)
        elif isinstance(error, ServerError):
            self.answer({"message": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """What is answered with a sentence is no fault."""
        if not isinstance(value, (JobNotFoundError, ServerError)):
            super().log_exception(typ, value, tb)


class _Jobs(_Answers):
    @web.authenticated
    @may("read")
    async def get(self) -> None:
        await self.hub.server.refresh()
        self.answer(await listing(self.hub))


class _Job(_Answers):
    @web.authenticated
    @may("read")
    async def get(self, uuid: str) -> None:
        self.answer((await self.hub.found(uuid)).snapshot)


class _Bundle(_Answers):
    @web.authenticated
    @may("read")
    async def get(self, uuid: str) -> None:
        from sage_nb.notebook.html import render_html
        from sage_nb.notebook.text import render_text

        try:
            snapshot = (await self.hub.found(uuid)).snapshot
        except JobNotFoundError:  # there is nothing to be shown; no error, which pages would have in their console
            self.answer({})
            return
        self.answer({"text/html": render_html(snapshot), "text/plain": render_text(snapshot)})


class _Logs(_Answers):
    @web.authenticated
    @may("read")
    async def get(self, uuid: str) -> None:
        asked = self.get_query_argument("n", "500")
        if not (asked.isascii() and asked.isdigit() and int(asked[:9]) > 0):
            raise web.HTTPError(400, f"n is a number of lines, 1 or more, not {asked[:60]!r}")
        self.answer(await self.hub.logs(uuid, min(int(asked[:9]), 10_000)))


class _Beside(msgspec.Struct):
    beside: str = ""


class _Notebook(_Answers):
    @web.authenticated
    @may("execute")
    @may("write", "contents")
    async def post(self, uuid: str) -> None:
        """Make a notebook that attaches to a server's job, in the folder of another one; its path is the answer."""
        snapshot = (await self.hub.found(uuid)).snapshot
        try:
            beside = msgspec.json.decode(self.request.body or b"{}", type=_Beside).beside
        except UNREADABLE as exc:
            raise web.HTTPError(400, f"not understood: {exc}") from exc
        specs = self.kernel_spec_manager
        name = self.kernel_manager.default_kernel_name
        kernel = {"name": name, "display_name": (await ensure_async(specs.get_kernel_spec(name))).display_name}
        source = f"%load_ext sage_nb\n%sage_attach {snapshot.uuid} {snapshot.server or ''}".rstrip()
        notebook = new_notebook(cells=[new_code_cell(source)], metadata={"kernelspec": kernel})
        contents = cast(Any, self.contents_manager)
        made = await ensure_async(contents.new_untitled(path=beside.rpartition("/")[0], type="notebook"))
        await ensure_async(contents.save({"type": "notebook", "content": notebook}, made["path"]))
        self.answer({"path": made["path"]}, HTTPStatus.CREATED)


class _Order(_Answers):
    @web.authenticated
    @may("execute")
    async def post(self, uuid: str, op: str) -> None:
        await self.hub.order(uuid, cast(Op, op))
        self.answer({}, HTTPStatus.ACCEPTED)


class _Server(_Answers):
    @web.authenticated
    @may("read")
    async def get(self) -> None:
        await self.hub.server.refresh()
        self.answer(self.hub.server.state)


class _Start(_Answers):
    @web.authenticated
    @may("execute")
    async def post(self) -> None:
        if not self.hub.server.may_start:
            raise web.HTTPError(403, "c.SageNb.start_server is off: pages may not have a JobManager server started")
        await self.hub.server.start()
        self.answer(self.hub.server.state)


class _Static(JupyterHandler):
    """The files of the views and of the panel, which are small."""

    @web.authenticated
    @may("read")
    def get(self, name: str) -> None:
        file = _STATIC / name
        if not file.is_file():
            raise web.HTTPError(404, f"there is no {name}")
        self.set_header("Content-Type", f"{_TYPES[file.suffix]}; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(file.read_bytes())  # with an ETag, so that a page fetches it once


class _Live(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """What pages listen to."""

    page: Page | None = None

    @property
    def max_message_size(self) -> int:
        return _MESSAGE

    @ws_authenticated
    @may("read")
    async def get(self) -> None:
        await super().get()

    def open(self) -> None:
        super().open()
        hub = cast(Hub, self.settings["sage_nb_hub"])
        self.page = Page(hub, self._say, self._failed)
        hub.opened(self.page)

    async def on_message(self, message: str | bytes) -> None:
        assert self.page is not None
        try:
            await self.page.hear(message)
        except UNREADABLE as exc:
            self.close(_NOT_UNDERSTOOD, f"not understood: {exc}"[:120])

    def on_close(self) -> None:
        if self.page is not None:
            cast(Hub, self.settings["sage_nb_hub"]).closed(self.page)

    def _failed(self, error: BaseException) -> None:
        self.log.error("sage_nb: a page's connection is given up", exc_info=error)
        self.close(_FAILED)

    async def _say(self, message: bytes) -> None:
        try:
            await self.write_message(message.decode())
        except WebSocketClosedError:
            return  # `on_close` comes
