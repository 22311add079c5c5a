"""A JSON server on a loopback port, as a stand-in for a model server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ErrorReply(Exception):
    """A response with a status other than 200.

    Args:
        status: HTTP status.
        content: JSON content of the response.
    """

    def __init__(self, status: int, content: Any):
        super().__init__(status)
        self.status, self.content = status, content


@contextmanager
def json_server(answer: Callable[[str, Any], Any]) -> Iterator[str]:
    """Start a server whose paths begin with ``/v1``; yields its address.

    Args:
        answer: maps a path below the address and the body of a request (None for GET) to a response; may raise `ErrorReply`.
            Called in threads.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: Any) -> None:
            try:
                status, content = 200, answer(self.path.removeprefix("/v1"), body)
            except ErrorReply as error:
                status, content = error.status, error.content
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Do not log requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
