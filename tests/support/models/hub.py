"""A model hub on this host, as far as downloads of one model need it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COMMIT = "a" * 40
_ETAG = "b" * 40


@contextmanager
def hub_with(model: str, file: Path) -> Iterator[str]:
    """Serve a model that has this one file; yields the hub's URL.

    The file lies in the hub's Xet storage, and so can be had over plain HTTP, too.
    """
    content = file.read_bytes()
    entry = {"type": "file", "path": file.name, "size": len(content), "oid": _ETAG}
    about = {"id": model, "sha": _COMMIT, "siblings": [{"rfilename": file.name}]}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {}
            if self.path == f"/{model}/resolve/{_COMMIT}/{file.name}":
                body = content
                headers = {"ETag": f'"{_ETAG}"', "X-Repo-Commit": _COMMIT, "X-Xet-Hash": "c" * 64}
            elif "/tree/" in self.path:
                body = json.dumps([entry]).encode()
            else:
                body = json.dumps(about).encode()
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the server calls it by this name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
