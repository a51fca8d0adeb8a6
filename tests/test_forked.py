"""Forked processes are processes as any other."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from forked import ADDRESS, Python, server_address, worker_interpreter


def test_a_program_has_its_own_arguments_environment_folder_and_files(python: Python, tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv, os.environ['WHAT'], os.getcwd(), sys.stdin.read()); sys.exit(3)"
    done = python.run("-c", code, "a", 1, env=os.environ | {"WHAT": "this"}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == f"['-c', 'a', '1'] this {tmp_path} \n"
    (tmp_path / "beside.py").write_text("what = 'beside'")
    (tmp_path / "main.py").write_text("import sys, beside; print(beside.what, sys.argv, __name__)")
    done = python.run(tmp_path / "main.py", "b")
    assert done.stdout == f"beside ['{tmp_path}/main.py', 'b'] __main__\n"
    done = python.run("-m", "beside", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_escapes_from_a_program_ends_it_as_python_does(python: Python) -> None:
    failed = python.run("-c", "raise ValueError('no')")
    assert failed.returncode == 1
    assert failed.stderr.endswith("ValueError: no\n")
    waits = "import time; print('waiting', flush=True); time.sleep(60)"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = python.start("-c", waits, start_new_session=True)
        assert process.wait_for_line() == "waiting"
        assert os.getsid(process.pid) == process.pid
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == -number
        assert ("KeyboardInterrupt" in process.stderr) == (number == signal.SIGINT)
    process = python.start("-c", waits)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    python.end()
    assert process.poll() == -signal.SIGKILL


def test_a_program_can_start_processes_of_its_own(python: Python, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "def work(x): return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool: print(pool.map(work, [1, 2]))\n"
    )
    for method in ("fork", "spawn"):
        assert python.run(script, method).stdout == "[2, 4]\n"


def test_what_a_worker_starts_has_the_files_that_are_passed(tmp_path: Path) -> None:
    code = "import os, sys; os.write(int(sys.argv[1]), b'through')"
    with (tmp_path / "file").open("wb") as file:
        command = [*shlex.split(worker_interpreter()), "-B", "-c", code, str(file.fileno())]
        environment = os.environ | {ADDRESS: server_address()}
        done = subprocess.run(command, pass_fds=[file.fileno()], stdin=subprocess.DEVNULL, env=environment)
    assert (done.returncode, (tmp_path / "file").read_bytes()) == (0, b"through")
    (tmp_path / "beside.py").write_text("import sys; print(sys.argv[1:])")
    command = [*shlex.split(worker_interpreter()), "-u", "-m", "beside", "-c", "a"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (0, b"['-c', 'a']\n")


def test_a_launch_is_one_group_of_processes(python: Python, tmp_path: Path) -> None:
    code = (
        "import sys, accelerate, torch; state = accelerate.PartialState(cpu=True); one = torch.ones(1)\n"
        "torch.distributed.all_reduce(one)\n"
        "open(f'{sys.argv[1]}/{state.process_index}', 'w').write(f'{state.num_processes} {one.item()}')\n"
    )
    python.launch(2, "-c", code, tmp_path)
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["2 2.0"] * 2
