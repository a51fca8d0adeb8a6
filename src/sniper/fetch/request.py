"""One HTTP request for the rest of a file, and what its answer says of the file."""

import http.client
import os
import re
from email.message import Message
from typing import IO, NamedTuple, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from sniper.errors import DownloadError
from sniper.fetch.names import Source

_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Mark(NamedTuple):
    """What a server said of the content of which a part is here."""

    url: str
    size: int | None = None  # bytes of the whole file
    validator: str | None = None  # strong ETag or date of the last change: names the content
    sha256: str | None = None  # told by a Hugging Face hub

    def continues(self, part: Self) -> bool:
        """Whether an answer with this mark brings the rest of what ``part`` was said of."""
        pairs = ((self.size, part.size), (self.validator, part.validator), (self.sha256, part.sha256))
        return all(new is None or old is None or new == old for new, old in pairs)


class Answer(NamedTuple):
    """The answer to a request for the rest of a file."""

    response: http.client.HTTPResponse
    start: int | None  # first byte that it brings; None: that of another place than asked for
    mark: Mark
    ends: bool  # whether one can tell that all of it has come
    encoded: bool


class _Redirects(HTTPRedirectHandler):
    """Follows the hub to where its files lie, and keeps what it says of them on the way."""

    def __init__(self) -> None:
        self.told = Message()

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme == "http"):
            raise DownloadError(f"{req.full_url}: the server points to {new.scheme}://{new.netloc}, which is not safe")
        for key, value in headers.items():
            if key not in self.told:
                self.told[key] = value
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def ask(source: Source, here: int, part: Mark, timeout_s: float) -> Answer:
    """Ask for what comes after the first ``here`` bytes of the content that ``part`` was said of.

    Raises:
        HTTPError: the server refuses.
        OSError: it cannot be reached.
        DownloadError: it points to an address that is not safe.
    """
    request = Request(source.url, headers={"User-Agent": "sniper", "Accept-Encoding": "identity"})
    if here:
        request.add_header("Range", f"bytes={here}-")
        if part.validator is not None:
            request.add_header("If-Range", part.validator)
    if source.hub and (token := os.environ.get("HF_TOKEN")):
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # for the hub alone
    redirects = _Redirects()
    response: http.client.HTTPResponse = build_opener(redirects).open(request, timeout=timeout_s)
    if response.status not in (200, 206):
        response.close()
        raise HTTPError(source.url, response.status, response.reason, response.headers, None)
    return _answer(source, response, redirects.told)


def _answer(source: Source, response: http.client.HTTPResponse, told: Message) -> Answer:
    headers = response.headers
    length = headers.get("Content-Length", "")
    start: int | None = 0
    size = int(length) if length.isdecimal() else None
    if response.status == 206:
        match = _RANGE.fullmatch(headers.get("Content-Range", ""))
        start = int(match.group(1)) if match else None
        size = int(match.group(2)) if match and match.group(2).isdecimal() else None
    etag = headers.get("ETag", "")
    strong = etag if etag.startswith('"') else None
    return Answer(
        response,
        start,
        Mark(
            source.url, size, strong or headers.get("Last-Modified"), _checksum(told, headers) if source.hub else None
        ),
        ends=size is not None or headers.get("Transfer-Encoding", "").lower() == "chunked",
        encoded=headers.get("Content-Encoding", "identity").lower() not in ("", "identity"),
    )


def _checksum(*told: Message) -> str | None:
    """The hub's checksum of a large file; small ones have none that is of use here."""
    for headers in told:
        for key in ("X-Linked-Etag", "ETag"):
            value = headers.get(key, "").removeprefix("W/").strip('"')
            if _SHA256.fullmatch(value):
                return value
    return None
