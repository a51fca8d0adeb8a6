"""One file over HTTP into a ``.part`` file that a later try goes on from, and under its name when it is complete.

Beside the part lies what the server said of it (``.part.json``): its ETag tells whether the rest belongs to the same
content. Without such a mark, or from a server that ignores ``Range``, a transfer begins anew.
"""

import hashlib
import http.client
import json
import logging
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple
from urllib.error import HTTPError, URLError

from sniper.errors import DownloadError, StorageError
from sniper.fetch.names import Source
from sniper.fetch.request import Answer, Mark, ask

OnProgress = Callable[[int, int | None], None]  # bytes that are here, size of the file where it is known

logger = logging.getLogger("sniper")

_PIECE = 1 << 18
_LONGEST_PAUSE_S = 30.0
_ADVICE = {
    300: "it points to an address that is not safe",
    401: "log in there, or set HF_TOKEN for a Hugging Face hub",
    403: "it is not given to everyone",
    404: "check the name",
    410: "check the name",
}
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class Patience(NamedTuple):
    """When a transfer is given up."""

    timeout_s: float = 30.0  # a server that says nothing for so long has stalled
    retries: int = 5  # tries in a row that bring nothing new
    pause_s: float = 1.0  # before the first of them; doubled each time, up to 30 s


PATIENCE = Patience()


class Transferred(NamedTuple):
    """A file that is complete under its name."""

    size: int
    sha256: str
    verified: bool  # compared with a checksum that was known beforehand or told by the server


class _BrokenError(Exception):
    """A transfer that broke off; the text is the reason."""

    def __init__(self, reason: str, wait_s: float = 0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def transfer(source: Source, path: Path, patience: Patience, on_progress: OnProgress) -> Transferred:
    """Fetch ``source`` to ``path``, whose folder exists, going on from what an earlier try left.

    Raises:
        DownloadError: the server refuses, keeps breaking off, or sends something else than was asked for.
        StorageError: ``path`` cannot be written; what is there is kept.
    """
    with _part_of(path) as part:
        return _Transfer(source, path, part, patience, on_progress).run()


@contextmanager
def _part_of(path: Path) -> Iterator[IO[bytes]]:
    """The ``.part`` file, open for this process alone and not buffered: what was received is kept."""
    place = path.with_name(path.name + ".part")
    try:
        part = os.fdopen(os.open(place, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
    except OSError as error:
        raise StorageError(f"cannot write {place}: {error.strerror or error}; set SNIPER_CACHE") from error
    with part:
        try:
            import fcntl

            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # Windows: a file that is open there cannot be renamed by another process
        except OSError as error:
            raise StorageError(f"another process is fetching {path}; wait for it") from error
        yield part


class _Transfer:
    """The tries of one transfer."""

    def __init__(
        self, source: Source, path: Path, part: IO[bytes], patience: Patience, on_progress: OnProgress
    ) -> None:
        self.source, self.path, self.part, self.patience, self.on_progress = source, path, part, patience, on_progress
        self.part_path = path.with_name(path.name + ".part")
        self.mark_path = path.with_name(path.name + ".part.json")
        self.mark = self._stored_mark()
        self.here = part.seek(0, os.SEEK_END)

    def run(self) -> Transferred:
        """Try until the file is complete, or as long as patience lasts."""
        max_count, failed = self.here, 0
        while True:
            try:
                self._try()
                return self._finish()
            except _BrokenError as broken:
                failed = 0 if self.here > max_count else failed + 1
                max_count = max(max_count, self.here)
                if failed > self.patience.retries:
                    kept = f"; {self.here} bytes are kept, run it again to go on" if self.here else ""
                    raise DownloadError(
                        f"{self.source.url}: {broken}, {failed} times in a row without anything new{kept}"
                    ) from broken
                pause = min(self.patience.pause_s * 2 ** max(failed - 1, 0), _LONGEST_PAUSE_S)
                pause = max(pause, min(broken.wait_s, _LONGEST_PAUSE_S))
                logger.warning("%s: %s; trying again in %.3g s", self.source.url, broken, pause)
                time.sleep(pause)

    def _try(self) -> None:
        """One request, and what its answer brings."""
        if self.here and self.mark.size == self.here:
            return  # complete but for its name
        if not self._can_go_on():
            self._restart()
        with self._network():
            answer = ask(self.source, self.here, self.mark, self.patience.timeout_s)
            try:
                self._receive(answer)
            finally:
                answer.response.close()

    def _receive(self, answer: Answer) -> None:
        if answer.encoded:
            raise DownloadError(f"{self.source.url}: the server sends the file packed, though asked not to")
        if answer.start != self.here or not answer.mark.continues(self.mark):
            self._restart()
            if answer.start != 0:  # a part of something else
                raise _BrokenError("the file has changed on the server")
        if self.source.sha256 is None and answer.mark.sha256 is None and not answer.ends:
            raise DownloadError(
                f"{self.source.url}: the server does not say how long the file is, so nobody could tell a part from "
                "the whole; give its --sha256"
            )
        self._remember(answer.mark)
        self._require_room()
        while piece := answer.response.read1(_PIECE):
            self._write(piece)
            self.on_progress(self.here, self.mark.size)
        if self.mark.size is not None and self.here != self.mark.size:
            raise _BrokenError(f"the connection ended after {self.here} of {self.mark.size} bytes")

    def _finish(self) -> Transferred:
        """Compare the checksum, then give the file its name."""
        self.part.seek(0)
        digest = hashlib.file_digest(self.part, "sha256").hexdigest()  # type: ignore[arg-type]
        wanted = self.source.sha256 or self.mark.sha256
        if wanted is not None and not digest.startswith(wanted):
            self._remove()
            raise DownloadError(
                f"{self.source.url}: the file has the checksum {digest[: len(wanted)]}, not {wanted}, and was removed; "
                "run it again, or give the --sha256 of the file that you trust"
            )
        try:
            os.fsync(self.part.fileno())
            self.part_path.replace(self.path)
        except OSError as error:
            raise self._cannot_write(error) from error
        self.mark_path.unlink(missing_ok=True)
        return Transferred(self.here, digest, wanted is not None)

    @contextmanager
    def _network(self) -> Iterator[None]:
        """What can go wrong on the way, told apart: worth another try, or final."""
        try:
            yield
        except HTTPError as error:
            error.close()
            if error.code == 416:  # the part is longer than the file: the file has changed
                self._restart()
                raise _BrokenError("the file has changed on the server") from error
            if error.code in _TRY_AGAIN:
                wait = error.headers.get("Retry-After", "") if error.headers else ""
                raise _BrokenError(
                    f"HTTP {error.code} ({error.reason})", float(wait) if wait.isdecimal() else 0
                ) from error
            advice = _ADVICE.get(error.code // 100 * 100 if error.code < 400 else error.code, "use another address")
            raise DownloadError(f"{self.source.url}: HTTP {error.code} ({error.reason}); {advice}") from error
        except (URLError, http.client.HTTPException, OSError) as error:
            reason = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
            if isinstance(reason, socket.gaierror):
                raise DownloadError(
                    f"{self.source.url}: the server is not found ({reason.strerror}); check the network and the address"
                ) from error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise DownloadError(
                    f"{self.source.url}: the server cannot prove who it is ({reason.verify_message})"
                ) from error
            raise _BrokenError(_words(reason, self.patience.timeout_s)) from error

    def _can_go_on(self) -> bool:
        known = self.mark.validator is not None or self.mark.sha256 is not None or len(self.source.sha256 or "") == 64
        return self.here > 0 and self.mark.url == self.source.url and known

    def _restart(self) -> None:
        self.part.seek(0)
        self.part.truncate()
        self.here, self.mark = 0, Mark(self.source.url)

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                written = self.part.write(rest) or 0
                self.here += written
                rest = rest[written:]
        except OSError as error:
            raise self._cannot_write(error) from error

    def _require_room(self) -> None:
        missing, free = (self.mark.size or self.here) - self.here, shutil.disk_usage(self.path.parent).free
        if missing > free:
            raise StorageError(
                f"{self.path} needs {missing / 1e6:.1f} MB more, but {free / 1e6:.1f} MB are free; "
                "free space or set SNIPER_CACHE to another folder"
            )

    def _remember(self, mark: Mark) -> None:
        self.mark = mark
        self.part.seek(self.here)
        try:
            self.mark_path.write_text(json.dumps(mark._asdict()), encoding="utf-8")
        except OSError as error:
            raise self._cannot_write(error) from error

    def _stored_mark(self) -> Mark:
        """What the server said at an earlier try; a mark that cannot be read says nothing."""
        try:
            return Mark(**json.loads(self.mark_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Mark(self.source.url)

    def _remove(self) -> None:
        self.part_path.unlink(missing_ok=True)
        self.mark_path.unlink(missing_ok=True)

    def _cannot_write(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write {self.part_path}: {error.strerror or error}; free space or set SNIPER_CACHE to another "
            f"folder; {self.here} bytes are kept, run it again to go on"
        )


def _words(reason: BaseException, timeout_s: float) -> str:
    if isinstance(reason, TimeoutError):
        return f"nothing came for {timeout_s:g} s"
    if isinstance(reason, ConnectionRefusedError):
        return "the server refuses the connection"
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return f"the connection broke ({text})"
