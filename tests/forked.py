"""Processes that tests start, forked from one that has imported torch and sniper: the fixture ``python`` has them.

``python.run("-m", "sniper", "models")`` is ``subprocess.run([sys.executable, ...])`` eight seconds faster. Where a
system has no Linux, it is just that. What libraries read when they are loaded is the server's: ``OMP_NUM_THREADS``,
``NUMBA_NUM_THREADS``. Where importing itself is tested, start a process with ``subprocess``.

As a program, ``forked.py -c CODE``, it is the interpreter of the workers of pytest-xdist: see ``worker_interpreter``.
"""

import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

ADDRESS = "SNIPER_TEST_FORK_SERVER"  # of the server that all workers of a test run share
SERVER = Path(__file__).with_name("fork_server.py")


class Handle(Protocol):
    """What ``subprocess.Popen`` and ``_Forked`` have in common."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int) -> None: ...


class _Forked:
    """A process that the server forked."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._code: int | None = None
        self.pid = self._number()

    def _number(self) -> int:
        received = self._connection.recv(4, socket.MSG_WAITALL)
        assert len(received) == 4, "the server that forks processes for tests has ended"
        return int(struct.unpack("!i", received)[0])

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; minus the signal that ended it."""
        if self._code is None:
            self._connection.settimeout(timeout)
            try:
                self._code = self._number()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
            self._connection.close()
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Process:
    """A running Python program; what it writes goes to files."""

    def __init__(self, handle: Handle, output: Path, errors: Path) -> None:
        self._handle, self._output, self._errors = handle, output, errors
        self.pid, self.poll, self.wait, self.send_signal = handle.pid, handle.poll, handle.wait, handle.send_signal

    @property
    def stdout(self) -> str:
        """What it wrote so far."""
        return self._output.read_text()

    @property
    def stderr(self) -> str:
        """What it wrote so far."""
        return self._errors.read_text()

    def kill(self) -> None:
        """End it at once and wait for that."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def wait_for_line(self, timeout: float = 60) -> str:
        """The first line of its standard output, once it is there."""
        until = time.monotonic() + timeout
        while "\n" not in self.stdout:
            assert self.poll() is None, f"ended without a line: {self.stderr}"
            assert time.monotonic() < until, "no line in time"
            time.sleep(0.01)
        return self.stdout.partition("\n")[0]

    def finish(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end; what came of it."""
        code = self.wait(timeout)
        return subprocess.CompletedProcess([], code, self.stdout, self.stderr)


class Python:
    """Starts Python programs, whose arguments are those of ``python``: ``-c CODE``, ``-m MODULE`` or a file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, list[Process]()

    def start(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        start_new_session: bool = False,
    ) -> Process:
        """Start a program; the named arguments are those of ``subprocess.Popen``."""
        output, errors = (self._folder / f"{len(self._started)}.{name}" for name in ("out", "err"))
        settings = {
            "arguments": [str(argument) for argument in arguments],
            "environment": dict(os.environ if env is None else env),
            "folder": str(cwd or Path.cwd()),
            "new_session": start_new_session,
        }
        with Path(os.devnull).open("rb") as nothing, output.open("wb") as to, errors.open("wb") as errors_to:
            handle = _start(settings, [nothing.fileno(), to.fileno(), errors_to.fileno()])
        process = Process(handle, output, errors)
        self._started.append(process)
        return process

    def run(self, *arguments: object, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
        """Start a program and wait for its end."""
        return self.start(*arguments, **options).finish(timeout)

    def launch(self, count: int, *arguments: object, timeout: float = 240) -> None:
        """Run one program in several processes of one training on the CPU, as ``torchrun`` does; each must succeed."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        common |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
        started = [self.start(*arguments, env=os.environ | common | rank) for rank in ranks]
        until = time.monotonic() + timeout
        for process in started:
            done = process.finish(max(0.0, until - time.monotonic()))
            assert done.returncode == 0, done.stderr[-3000:]

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            process.kill()


def _start(settings: dict[str, Any], files: list[int], passed: Sequence[int] = ()) -> Handle:
    """Start a program with the first three ``files``; those that are ``passed`` it has under the same numbers."""
    if sys.platform != "linux":
        return subprocess.Popen(
            [sys.executable, *settings["arguments"]], stdin=files[0], stdout=files[1], stderr=files[2],
            env=settings["environment"], cwd=settings["folder"], start_new_session=settings["new_session"],
        )  # fmt: skip
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server_address())
    request = json.dumps(settings | {"passed": list(passed)}).encode()
    socket.send_fds(connection, [struct.pack("!I", len(request))], [*files, *passed])
    connection.sendall(request)
    return _Forked(connection)


def server_address() -> str:
    """The socket of the server that all tests share, else of this process's own."""
    return os.environ.get(ADDRESS) or _Server.of_this_process().address


class _Server:
    """The server as a process of its own, until ``stop``."""

    _own: "_Server | None" = None

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sniper-tests-")
        self.address = str(Path(self._folder.name) / "socket")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(SERVER), self.address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        while not Path(self.address).exists():
            assert self._process.poll() is None, "the server that forks processes for tests did not start"
            time.sleep(0.01)

    @classmethod
    def of_this_process(cls) -> "_Server":
        cls._own = cls._own or cls()
        return cls._own

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


def worker_interpreter() -> str:
    """The command that pytest-xdist starts in place of ``python``, so that its workers are forked too."""
    return f"{shlex.quote(sys.executable)} {shlex.quote(__file__)}"


def processes_interpreter() -> str | None:
    """A file that multiprocessing and torchrun start in place of ``python``, where all tests share a server.

    What it forks the processes of an evaluation from imports torch for five seconds otherwise.
    """
    address = os.environ.get(ADDRESS)
    return str(Path(address).with_name("python")) if address else None


def _run_worker() -> int:
    """Have a process forked that has this one's arguments, files and environment; its exit code, once it ends."""
    passed = [int(file.name) for file in Path("/proc/self/fd").iterdir() if int(file.name) > 2 and file.exists()]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the affair of who started this
    settings = {
        "arguments": sys.argv[next(k for k, one in enumerate(sys.argv) if one in ("-c", "-m")) :],  # without options
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "new_session": False,
    }
    return _start(settings, [0, 1, 2], passed).wait()


def share_server() -> None:
    """Start the server for this process and all that it starts."""
    if sys.platform == "linux":
        os.environ[ADDRESS] = _Server.of_this_process().address
        script = Path(os.environ[ADDRESS]).with_name("python")
        script.write_text(f'#!/bin/sh\nexec {worker_interpreter()} "$@"\n')
        script.chmod(0o755)


def stop_server() -> None:
    """End the server, if this process has started it, and all that it forked."""
    if _Server._own is not None:
        _Server._own.stop()
        _Server._own = None
        os.environ.pop(ADDRESS, None)


if __name__ == "__main__":
    sys.exit(_run_worker())
