"""A real web server on this machine whose transfers break, stall, lie and change."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What is served, and how; tests change it between requests."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {"/net.bin": CONTENT})
    etag: str | None = '"one"'
    ranges: bool = True
    if_range: bool = True
    stops: list[int] = field(default_factory=list)  # of each answer in turn: bytes after which the connection is cut
    stall_s: float = 0  # instead of being cut, it says nothing for so long
    slow_s: float = 0  # pause after each 10 kB
    status: list[int] = field(default_factory=list)  # of each answer in turn, before normal ones
    length: str = "right"  # none, chunked
    headers: dict[str, str] = field(default_factory=dict)
    redirect: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)  # path, Range, Authorization


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(site, self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def answer(site: Site, handler: BaseHTTPRequestHandler) -> None:
    wanted = handler.headers.get("Range")
    site.asked.append((handler.path, wanted, handler.headers.get("Authorization")))
    handler.close_connection = True
    status = site.status.pop(0) if site.status else 200
    if status != 200 or handler.path not in {*site.files, *site.redirect}:
        handler.send_response(status if status != 200 else 404)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    if handler.path in site.redirect:
        target, headers = site.redirect[handler.path]
        handler.send_response(302)
        for key, value in {**headers, "Location": target, "Content-Length": "0"}.items():
            handler.send_header(key, value)
        handler.end_headers()
        return
    content, start = site.files[handler.path], 0
    same = not site.if_range or handler.headers.get("If-Range") in (None, site.etag)
    if wanted and site.ranges and same:
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        handler.send_response(200)
    if site.etag:
        handler.send_header("ETag", site.etag)
    if site.length == "right":
        handler.send_header("Content-Length", str(len(content) - start))
    elif site.length == "chunked":
        handler.send_header("Transfer-Encoding", "chunked")
    for key, value in site.headers.items():
        handler.send_header(key, value)
    handler.end_headers()
    body = content[start:]
    stop = site.stops.pop(0) if site.stops else None
    with suppress(OSError):
        send(site, handler, body if stop is None else body[:stop], whole=stop is None)


def send(site: Site, handler: BaseHTTPRequestHandler, body: bytes, *, whole: bool) -> None:
    for at in range(0, len(body), 10_000):
        piece = body[at : at + 10_000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if site.length == "chunked" else piece)
        handler.wfile.flush()
        time.sleep(site.slow_s)
    if site.length == "chunked" and whole:
        handler.wfile.write(b"0\r\n\r\n")
    if not whole:
        time.sleep(site.stall_s)
