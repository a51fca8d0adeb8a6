"""A process that has imported what the tests need, and forks the processes that they start.

    python fork_server.py SOCKET

Importing torch, torchvision, timm and sniper takes eight seconds of CPU, forking this process some milliseconds. What
is forked is a process as any other: its own id, files, environment, signals, exit code; ``forked.py`` asks for it.
"""

import atexit
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

PRELOADED = (
    "torch._dynamo",  # every optimiser imports it
    "torch.testing",
    "torch.utils.tensorboard",
    "matplotlib.pyplot",
    "hypothesis",
    "pytest",
    "sniper.cli",
    "sniper.demo.run",
    "sniper.pipeline.predict",
    "sniper.pipeline.propose",
)


class Request:
    """What a child is to be: a Python program, with the files, folder and environment that it is given."""

    def __init__(self, connection: socket.socket) -> None:
        """Read from a connection: its files, the length of the rest in four bytes, the rest as JSON."""
        head, self.files, _, _ = socket.recv_fds(connection, 4, 32)
        with connection.makefile("rb") as stream:
            self.settings: dict[str, Any] = json.loads(stream.read(*struct.unpack("!I", head)))

    def close(self) -> None:
        for file in self.files:
            os.close(file)

    def take_over(self) -> None:
        """Make this process the one that was asked for, but for its program."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.settings["new_session"]:
            os.setsid()
        aside = [fcntl.fcntl(file, fcntl.F_DUPFD, 200) for file in self.files]  # off the numbers that they are to have
        self.close()
        for number, file in zip((0, 1, 2, *self.settings["passed"]), aside, strict=True):
            os.dup2(file, number)
            os.close(file)
        os.chdir(self.settings["folder"])
        os.environ.clear()
        os.environ.update(self.settings["environment"])

    def run(self) -> int:
        """Run the program to its end, and what it registered for that; its exit code."""
        code = 0
        try:
            self._run()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            if code and not isinstance(ended.code, int):
                print(ended.code, file=sys.stderr)
        except BaseException as error:
            code = 1 if isinstance(error, Exception) else -signal.SIGINT
            sys.excepthook(*sys.exc_info())
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        return code

    def _run(self) -> None:
        """As ``python -c CODE``, ``python -m MODULE`` or ``python FILE`` do."""
        first, *rest = self.settings["arguments"]
        sys.argv = ["-c", *rest[1:]] if first == "-c" else rest if first == "-m" else [first, *rest]
        sys.path[0] = {"-c": "", "-m": str(Path.cwd())}.get(first, str(Path(first).parent))
        if first == "-c":
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), main.__dict__)
        elif first == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(first, run_name="__main__")


def serve(listener: socket.socket) -> Request | None:
    """Fork a process for each connection, and send its id, later its exit status, in four bytes each.

    Returns:
        In a forked process, what it was asked to be; in this one, nothing, once its standard input ends.
    """
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the affair of who started this
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([0, listener, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_ended(running)
        if 0 in ready and not os.read(0, 1):
            for process in running:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            return None
        if listener in ready:
            connection, _ = listener.accept()
            request = Request(connection)
            process = os.fork()
            if not process:
                for other in (listener, connection, *running.values()):
                    other.close()
                signal.set_wakeup_fd(-1)
                os.close(woken)
                os.close(wake)
                request.take_over()
                return request
            request.close()
            connection.sendall(struct.pack("!i", process))
            running[process] = connection


def _report_ended(running: dict[int, socket.socket]) -> None:
    while running:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            break
        connection = running.pop(process)
        connection.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
        connection.close()


def _load_the_rest() -> None:
    """What numba and Pillow import at their first use, a second of work."""
    import numba
    from PIL import Image

    numba.njit(lambda number: number + 1)(1)
    Image.init()


def _nothing(signal_number: int, frame: FrameType | None) -> None:
    """A signal that is handled writes to the file that wakes ``select``; one that is ignored does not."""


def _end(code: int) -> NoReturn:
    # Not the interpreter's own end: it would take all modules apart, two seconds of work.
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        signal.raise_signal(-code)
    os._exit(code)


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1] + ".new")
        listener.listen(64)
        Path(sys.argv[1] + ".new").rename(sys.argv[1])  # who sees it can connect
        # Collecting garbage among the million objects of these modules takes as long as all else, and touching them
        # copies their pages into each child.
        gc.disable()
        for name in PRELOADED:
            import_module(name)
        _load_the_rest()
        gc.freeze()
        gc.enable()
        # No test pulls the plug: a file need not reach the disk before its test goes on, 4 ms each, but must be open.
        os.fsync = os.fstat
        threads = len(list(Path("/proc/self/task").iterdir()))
        assert threads == 1, f"{threads} threads after importing: a forked process would lack all but one of them"
        request = serve(listener)
    if request is not None:
        _end(request.run())


if __name__ == "__main__":
    main()
