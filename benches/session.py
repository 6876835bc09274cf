"""The parent's side of a session: a driver process, asked with a time limit, and ended whatever happens."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import uuid

import machine
import venvs

HERE = os.path.dirname(os.path.abspath(__file__))


class Failed(Exception):
    """A call gave no figure: the text says why (time limit, error, not supported)."""


class Session:
    """A peer at work. `with Session("ray") as ray: ray.ask("flat", 60, n=100)`."""

    def __init__(self, peer):
        self.peer = peer
        self.token = uuid.uuid4().hex
        self.process = None
        # Short: it holds unix sockets, whose paths may have 107 bytes.
        self.folder = tempfile.mkdtemp(prefix="dcb.")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def _start(self):
        try:
            interpreter = venvs.python("client" if self.peer == "dcluster" else self.peer)
        except OSError as error:
            raise Failed(str(error)) from None
        env = {k: v for k, v in os.environ.items() if not k.startswith("DCLUSTER") or k == "DCLUSTER"}
        env |= {machine.MARK: self.token, "PYTHONPATH": HERE}
        env["PATH"] = os.path.dirname(interpreter) + os.pathsep + env.get("PATH", "")
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.process = subprocess.Popen(
            [interpreter, "-B", os.path.join(HERE, "driver.py"), self.peer, self.folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=env, cwd=self.folder,
            start_new_session=True,
        )

    def ask(self, call, patience, **args):
        """Calls a method of the peer; raises Failed when it does not answer within `patience` seconds.

        A driver that was too late is ended: the next call starts another.
        """
        if self.process is None:
            self._start()
        line = json.dumps({"call": call, "args": args}) + "\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except OSError:
            raise self._gone() from None
        deadline = time.monotonic() + patience
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                self._kill()
                raise Failed(f"not done after {patience:.0f} s")
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                raise self._gone()
            answer += part
        answer = json.loads(answer)
        if "ok" in answer:
            return answer["ok"]
        raise Failed(answer.get("unsupported") or answer["error"])

    def _gone(self):
        code = self.process.wait()
        self._kill()
        return Failed(f"ended by itself with exit code {code}")

    def _kill(self):
        machine.end_all(self.token)
        if self.process is not None:
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.log.close()
            self.process = None

    def idle(self, seconds=3):
        """Returns (resident bytes, share of a core) of all processes of the session but the driver, idle."""
        pids = [pid for pid in machine.marked(self.token) if self.process is None or pid != self.process.pid]
        before = {pid: machine.running_seconds(pid) for pid in pids}
        time.sleep(seconds)
        resident = used = 0
        for pid in pids:
            try:
                resident += machine.memory(pid)[0]
                used += machine.running_seconds(pid) - before[pid]
            except OSError:
                pass
        return resident, used / seconds

    def end(self):
        """Ends the session and all its processes, and removes its folder."""
        if self.process is not None:
            try:
                self.ask("stop", 20)
            except Failed:
                pass
        self._kill()
        shutil.rmtree(self.folder, ignore_errors=True)
