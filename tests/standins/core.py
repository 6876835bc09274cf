"""The core of the stand-in batch system: a server that really runs job scripts. It knows no batch system by name.

A *face* is a module (`pbs.py`, `lsf.py`) that turns a system's commands into calls of `Core` and its records into
that system's formats, exit codes and texts. `batch` sends every command to the server, which calls the face.

What a face provides:

    DEFAULTS                      settings of its own, beside `DEFAULTS` below
    SPARE_LEADER = True           signals of a ladder go to the processes of the job's session but the first; KILL
                                  goes to all
    command(core, request)        does one command; returns [exit code, stdout, stderr]. `request` is a dict:
                                  command args cwd env stdin uid umask, and from a fault: lie
    down(request)                 what a command does when no server listens; runs in the command itself, so it may
                                  print, sleep and loop; returns [exit code, stdout, stderr]
    launch(core, job)             how to start a job: {"argv", "argv0"?, "env", "cwd", "stdin"?, "stdout", "stderr"?,
                                  "append"?, "umask"?}: a folder, files and a text for stdin; stderr goes to stdout's
                                  file when absent. A `cwd` that is not there is replaced by /tmp
    ladder(core, job, why)        signals of a cancellation or of an end by the system: [[seconds after, number], ...];
                                  `why` is what `Core.end` was given, or "walltime"
    ended(core, job)              called once when a job's first process has ended and its session is swept, before it
                                  is "done": delivers outputs. Returns seconds it is to stay "ending"

What `Core` offers a face:

    core.config                   settings: `DEFAULTS`, then the face's, then what tests have set
    core.submit(spec, indexes)    makes the records of a job (`indexes=None`) or of an array; returns its number.
                                  `spec` is a dict: name owner queue cpus memory walltime script cwd env, all of
                                  which a face may leave to the defaults of `NEW`, and `attrs`, the face's own
    core.jobs                     all records, {key: job}, in the order of submission; the key is "12" or "12[3]"
    core.of(number)               the records of one number, in order of index
    core.end(job, why)            starts the ladder; a job that is pending is done at once
    core.rerun(job)               kills what runs and puts the job back into the queue, under the same number
    core.signal(job, number)      to the processes of the session, sparing as above
    core.forget(job)              deletes a record
    core.now()                    seconds since 1970
    core.folder                   where files may be kept

A record (a dict; plain JSON) has: key number index name owner uid queue cpus memory (bytes) walltime (s) script cwd
env attrs; state ("held", "pending", "running", "ending", "done"); wait, why it is pending: ["new"], ["delay"],
["queue"], ["busy", what, wanted, free, total], ["never", what, wanted, free, total]; submitted started ended (times or
None); runs; node; slot, the first cpu on the node; session (number of the session or None); code (exit code of the
first process, 128 + signal, or None when it never ran); signal (what killed the first process or None); why (what it
was ended for or None); sent (last signal sent to it or None).
"""

import json
import os
import pwd
import select
import signal
import time
import traceback

DEFAULTS = {
    # Which face's commands this server answers: set before it starts.
    "system": "pbs",
    "host": "standin",
    # Number of the first job.
    "first_number": 0,
    "nodes": [{"name": "n1", "cpus": 8, "memory": 16 << 30}],
    # Queues by name; a face says what else one has. `started`: false lets jobs wait.
    "queues": {},
    # Seconds between a submission and the earliest start.
    "start_delay": 0.05,
    # No job starts while it is false.
    "scheduling": True,
    # Seconds between the first signal and KILL.
    "grace": 2.0,
    # A walltime is at an end so much later, as systems look at it now and then only.
    "walltime_slack": 0.2,
    # One second of walltime lasts so long: tests do not wait for minutes.
    "second": 1.0,
}

NEW = {
    "name": "job",
    "queue": None,
    "cpus": 1,
    "memory": 0,
    "walltime": None,
    "script": "",
    "cwd": "/",
    "env": {},
    "attrs": {},
    "held": False,
}


class Core:
    """Records and what runs."""

    def __init__(self, folder):
        self.folder = folder
        self.jobs = {}
        self.next = None
        self.settings = {}
        self.changed = False
        for name in ("run", "faults"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        try:
            with open(os.path.join(folder, "state.json"), encoding="utf-8") as file:
                kept = json.load(file)
            self.jobs, self.next = kept["jobs"], kept["next"]
        except FileNotFoundError:
            pass
        system = self._settings().get("system", DEFAULTS["system"])
        self.face = __import__(system)
        self.reload()
        if self.next is None:
            self.next = self.config["first_number"]

    def _settings(self):
        try:
            with open(os.path.join(self.folder, "settings.json"), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {}

    def reload(self):
        self.config = {**DEFAULTS, **self.face.DEFAULTS, **self._settings()}

    def now(self):
        return time.time()

    def save(self):
        if self.changed:
            path = os.path.join(self.folder, "state.json")
            with open(path + ".new", "w", encoding="utf-8") as file:
                json.dump({"jobs": self.jobs, "next": self.next}, file)
            os.rename(path + ".new", path)
            self.changed = False

    # What faces call.

    def submit(self, spec, indexes=None):
        number, self.next = self.next, self.next + 1
        for index in [None] if indexes is None else indexes:
            key = f"{number}" if index is None else f"{number}[{index}]"
            self.jobs[key] = {
                **NEW,
                **spec,
                "key": key,
                "number": number,
                "index": index,
                "state": "held" if spec.get("held") else "pending",
                "wait": ["new"],
                "submitted": self.now(),
                "started": None,
                "ended": None,
                "runs": 0,
                "node": None,
                "slot": None,
                "session": None,
                "code": None,
                "signal": None,
                "why": None,
                "sent": None,
                "steps": [],
            }
        self.changed = True
        return number

    def of(self, number):
        return sorted((j for j in self.jobs.values() if j["number"] == number), key=lambda j: j["index"] or 0)

    def end(self, job, why):
        self.changed = True
        if job["state"] in ("pending", "held"):
            job.update(state="done", ended=self.now(), why=why)
        elif job["state"] == "running":
            now = self.now()
            job["why"] = job["why"] or why
            job["steps"] = [[now + delay, number] for delay, number in self.face.ladder(self, job, why)]
            self.climb(job)

    def rerun(self, job):
        if job["state"] == "running":
            job["why"] = "rerun"
            self.signal(job, signal.SIGKILL)

    def signal(self, job, number):
        self.changed = True
        job["sent"] = number
        spare = job["session"] if self.face.SPARE_LEADER and number != signal.SIGKILL else None
        signal_session(job["session"], number, spare)

    def forget(self, job):
        self.changed = True
        if job["session"] and job["state"] == "running":
            signal_session(job["session"], signal.SIGKILL)
        del self.jobs[job["key"]]

    # The course of things.

    def tick(self):
        now = self.now()
        if self.config["scheduling"]:
            self.schedule(now)
        for job in list(self.jobs.values()):
            if job["state"] == "running":
                self.look(job, now)
            if job["state"] == "ending" and now >= job["until"]:
                job.update(state="done")
                self.changed = True

    def look(self, job, now):
        run = os.path.join(self.folder, "run", job["key"])
        if job["session"] is None:
            try:
                with open(run + ".session", encoding="utf-8") as file:
                    job["session"] = int(file.read())
                self.changed = True
            except (FileNotFoundError, ValueError):
                pass
        self.climb(job)
        limit = job["walltime"]
        if limit is not None and not job["why"] and job["session"]:
            if now - job["started"] > limit * self.config["second"] + self.config["walltime_slack"]:
                self.end(job, "walltime")
        try:
            with open(run + ".exit", encoding="utf-8") as file:
                status = int(file.read())
        except (FileNotFoundError, ValueError):
            return
        if job["session"]:
            signal_session(job["session"], signal.SIGKILL)
        self.changed = True
        if job["why"] == "rerun":
            job.update(state="pending", session=None, node=None, slot=None, started=None, why=None, sent=None, steps=[])
            return
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = 128 + killed if killed else os.WEXITSTATUS(status)
        job.update(code=code, signal=killed, ended=now, state="ending")
        job["until"] = now + (self.face.ended(self, job) or 0)

    def climb(self, job):
        while job["session"] and job["steps"] and job["steps"][0][0] <= self.now():
            _, number = job["steps"].pop(0)
            self.signal(job, number)

    def schedule(self, now):
        for job in self.jobs.values():
            if job["state"] != "pending":
                continue
            wait = self.place(job, now)
            if wait != job["wait"]:
                job["wait"] = wait
                self.changed = True

    def place(self, job, now):
        """Starts a job, or returns why it waits."""
        if now < job["submitted"] + self.config["start_delay"]:
            return job["wait"]
        queue = self.config["queues"].get(job["queue"], {})
        if not queue.get("started", True):
            return ["queue"]
        if job["attrs"].get("not_before", 0) > now:
            return ["delay"]
        lack = None
        fits = False
        for node in self.config["nodes"]:
            here = [j for j in self.jobs.values() if j["node"] == node["name"] and j["state"] in ("running", "ending")]
            lacks = []
            for what in ("cpus", "memory"):
                free = node[what] - sum(j[what] for j in here)
                if job[what] > free:
                    lacks.append([what, job[what], free, node[what]])
            if node.get("down"):
                lacks.append(["node", 1, 0, 1])
            if not lacks:
                taken = {cpu for j in here for cpu in range(j["slot"], j["slot"] + j["cpus"])}
                slot = next(c for c in range(node["cpus"] + 1) if c not in taken)
                self.start(job, node, slot, now)
                return ["new"]
            fits |= all(wanted <= total for _, wanted, _, total in lacks)
            lack = lack or lacks[0]
        return ["busy" if fits else "never", *(lack or ["node", 1, 0, 0])]

    def start(self, job, node, slot, now):
        job.update(state="running", started=now, node=node["name"], slot=slot, runs=job["runs"] + 1, wait=["new"])
        self.changed = True
        run = os.path.join(self.folder, "run", job["key"])
        for end in (".exit", ".session"):
            if os.path.exists(run + end):
                os.unlink(run + end)
        how = self.face.launch(self, job)
        self.save()
        if os.fork() == 0:
            try:
                shepherd(run, how)
            finally:
                os._exit(70)

    def serve(self, listener):
        ends = []
        signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while not ends and os.path.isdir(self.folder):
            busy = any(job["state"] in ("pending", "running", "ending") for job in self.jobs.values())
            readable, _, _ = select.select([listener], [], [], 0.02 if busy else 0.5)
            if readable:
                connection, _ = listener.accept()
                with connection:
                    self.answer(connection)
            # What was set since holds at once, whether or not anybody asks.
            self.reload()
            self.tick()
            self.save()

    def answer(self, connection):
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        request = json.loads(b"".join(parts))
        try:
            self.reload()
            self.tick()
            answer = self.internal(request) if "do" in request else self.face.command(self, request)
        except Exception:  # A mistake in a face is told where the test sees it.
            answer = [99, "", traceback.format_exc()]
        self.save()
        try:
            connection.sendall(json.dumps(answer).encode())
        except BrokenPipeError:
            pass

    def internal(self, request):
        match request["do"]:
            case "jobs":
                return [0, json.dumps(list(self.jobs.values()), indent=1), ""]
            case "lose":
                for job in [j for j in self.jobs.values() if request["id"] in (j["key"], str(j["number"]))]:
                    self.forget(job)
            case "sweep":
                for job in list(self.jobs.values()):
                    self.forget(job)
        return [0, "", ""]


def user_name(uid):
    """The name of a user, as systems show it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def signal_session(session, number, spare=None):
    """Sends a signal to every process of a session, but `spare`: one after the other, the youngest first."""
    entries = [entry for entry in os.listdir("/proc") if entry.isdigit()] if session else []
    for entry in sorted(entries, key=int, reverse=True):
        if int(entry) == spare:
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[3]) == session:
                os.kill(int(entry), number)
                if number != signal.SIGKILL:
                    time.sleep(0.005)
        except (FileNotFoundError, ProcessLookupError):
            pass


def shepherd(run, how):
    """Runs one job and leaves how it ended in a file: outlives a server that is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    os.closerange(3, 1024)
    child = os.fork()
    if child == 0:
        try:
            become(how)
        except BaseException:
            with open(run + ".failed", "w", encoding="utf-8") as file:
                traceback.print_exc(file=file)
        os._exit(127)
    write(run + ".session", str(child))
    _, status = os.waitpid(child, 0)
    # What it left behind goes before anybody hears that it has ended.
    signal_session(child, signal.SIGKILL)
    write(run + ".exit", str(status))
    os._exit(0)


def become(how):
    """Turns this process into the first one of a job."""
    os.setsid()
    # Python ignores these, and what is ignored stays so in the program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.umask(how.get("umask", 0o77))
    reading, writing = os.pipe()
    os.write(writing, how.get("stdin", "").encode()[:60000])
    os.close(writing)
    os.dup2(reading, 0)
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if how.get("append") else os.O_TRUNC)
    out = os.open(how["stdout"], flags, 0o600)
    err = os.open(how["stderr"], flags, 0o600) if how.get("stderr") else out
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 1024)
    try:
        os.chdir(how["cwd"])
    except OSError:
        os.chdir("/tmp")
    argv = [how.get("argv0", how["argv"][0]), *how["argv"][1:]]
    os.execve(how["argv"][0], argv, how["env"])


def write(path, text):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(path + ".new", path)
