"""dcluster: the binary of $DCLUSTER, on the local backend, with a state folder of its own.

Beyond what all peers have it measures with simulated workers (`worker join --simulate`), which take
tasks and end them without running anything.
"""

import json
import os
import subprocess
import threading
import time

import loads
import machine
from client import Client, submission
from peers import TRUE, Base, timed

LIMIT_SECONDS = 120
ANSWER_EVERY_SECONDS = 0.01


class Peer(Base):
    def __init__(self, folder):
        super().__init__(folder)
        self.binary = os.environ["DCLUSTER"]
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("DCLUSTER") or k == machine.MARK}
        self.env["DCLUSTER_STATE"] = os.path.join(folder, "state")
        self.client = None
        self.joined = []

    def command(self, *words, limit=LIMIT_SECONDS):
        done = subprocess.run(
            [self.binary, *words], env=self.env, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=limit,
        )
        if done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr.decode(errors='replace').strip()}")

    def version(self):
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True).stdout.strip()

    def connect(self):
        self.client = Client(os.path.join(self.env["DCLUSTER_STATE"], "default"))
        self.server = self.client.status()["pid"]

    def start(self, cores):
        super().start(cores)
        self.up = timed(
            self.command, "up", "--backend", "local", "--cores", str(cores), "--jobs", "1", "--wait", "1"
        )
        self.connect()

    def stop(self):
        for process in self.joined:
            process.terminate()
        self.command("down", "--now")

    def first(self):
        """Seconds of `up` until its worker is there, and until the first task is done."""
        return {"up": self.up, "first": self.up + self.one(1)[0]}

    def measured(self, function):
        """Runs a load. Returns its seconds, the server's CPU seconds and its longest turn in seconds."""
        self.client.status()
        before = machine.cpu_seconds(self.server)
        seconds = timed(function)
        turn = self.client.status()["longest_turn_microseconds"] / 1e6
        return {"seconds": seconds, "cpu": machine.cpu_seconds(self.server) - before, "turn": turn}

    # The same as every peer.

    def one(self, n):
        """By the command line, the start of that process included."""
        return [timed(self.command, "submit", "--wait", "--", TRUE) for _ in range(n)]

    def one_connected(self, n):
        """By a client that is connected already, as those of the Python peers are."""
        return [timed(self.run, submission([TRUE])) for _ in range(n)]

    def run(self, request):
        self.client.ask(request)
        self.client.wait()

    def flat(self, n, way="array"):
        words = {
            "map": ["map", TRUE, ":::", *map(str, range(1, n + 1))],
            "array": ["submit", "--wait", "--array", f"1-{n}", "--", TRUE],
            "quiet": ["submit", "--wait", "--array", f"1-{n}", "--stdout", "/dev/null", "--stderr", "/dev/null",
                      "--", TRUE],
        }[way]
        return self.measured(lambda: self.command(*words))

    def graph(self, shape, size):
        """One submission a task, all sent at once; ids are given in order, so they are known before."""
        graph = loads.graph(shape, *size)
        first = self.client.ask(submission([TRUE]))["Submitted"]["array"] + 1
        self.client.wait()
        requests = [submission([TRUE], after=[first + i for i in after]) for after in graph]

        def run():
            replies = self.client.ask_all(requests)
            assert [reply["Submitted"]["array"] for reply in replies] == list(range(first, first + len(graph)))
            counts = self.client.wait()
            assert counts["failed"] + counts["cancelled"] == 0, counts

        return {**self.measured(run), "tasks": len(graph)}

    # On Slurm, for the part `scaling`.

    def start_slurm(self):
        """Brings up a cluster whose number of jobs follows the load."""
        self.command(
            "up", "--backend", "slurm", "--min", "0", "--max", str(loads.DAY_JOBS), "--cores", str(loads.DAY_CORES),
            "--memory", "1GB", "--walltime", f"{loads.DAY_WALLTIME_SECONDS}s",
        )

    def day(self):
        begin = time.time()
        # Elements of an array have one name in Slurm: jobs are told apart by its ids.
        job = 'job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; job=${job:-$SLURM_JOB_ID}'
        say = '"$me $(date +%s.%N)" >> runs'
        for at, count, seconds in loads.DAY:
            time.sleep(max(0.0, begin + at - time.time()))
            script = f'{job}; me="$DCLUSTER_TASK_ID $DCLUSTER_TASK_RUN $job"; echo start {say}; sleep {seconds}; ' \
                     f"echo end {say}"
            self.command("submit", "--array", f"1-{count}", "--", "sh", "-c", script)
        self.command("wait", limit=600)
        end = time.time()
        with open(os.path.join(self.env["DCLUSTER_STATE"], "default", "id")) as file:
            name = f"dc{json.load(file)['letters']}-"
        with open(os.path.join(self.folder, "runs")) as file:
            text = file.read()
        return {"begin": begin, "seconds": end - begin, "failed": 0, "name": name, "runs": text}

    # With simulated workers.

    def start_empty(self):
        """Brings up a cluster without a worker."""
        self.command("up", "--backend", "local", "--cores", "1", "--jobs", "0")
        self.connect()

    def join(self, workers, cores, how="0s"):
        """Adds simulated workers; returns the seconds until all are there."""
        begin = time.perf_counter()
        words = ["worker", "join", "--simulate", how, "--cores", str(cores), "--workers", str(workers)]
        process = subprocess.Popen([self.binary, *words], env=self.env, cwd=self.folder, stdin=subprocess.DEVNULL)
        self.joined.append(process)
        while len(self.client.status()["workers"]) < workers:
            if process.poll() is not None:
                raise RuntimeError(f"worker join ended with exit code {process.returncode}")
            # A status with thousands of workers is not small: asking too often would be what is measured.
            time.sleep(max(0.005, workers / 10_000))
        return time.perf_counter() - begin

    def pretend(self, n):
        """An array of n tasks on the simulated workers."""
        return self.measured(lambda: self.run(submission([TRUE], count=n)))

    def hold(self, n, way="array"):
        before, _ = machine.memory(self.server)
        if way == "array":
            seconds = timed(self.command, "submit", "--array", f"1-{n}", "--", TRUE)
        else:
            requests = [submission([TRUE]) for _ in range(n)]
            seconds = timed(self.client.ask_all, requests)
        after, peak = machine.memory(self.server)
        turn = self.client.status()["longest_turn_microseconds"] / 1e6
        return {"accepted": seconds, "before": before, "after": after, "peak": peak, "turn": turn}

    def finish(self, workers, cores):
        """Lets simulated workers end what is held."""

        def run():
            self.join(workers, cores)
            self.client.wait()

        result = self.measured(run)
        now, peak = machine.memory(self.server)
        return {**result, "now": now, "peak": peak}

    def mix(self, limit):
        self.start_empty()
        self.join(loads.MIX_WORKERS, loads.MIX_CORES, "sleep")
        tasks = loads.mix()
        words = ["sleep", str(loads.MIX_SECONDS)]
        requests = [submission(words, cores=cores, priority=priority) for cores, priority in tasks]

        def run():
            self.client.ask_all(requests)
            self.client.wait()

        answers = Answers(self.client_folder())
        result = self.measured(run)
        return {**result, "finished": len(tasks), "tasks": len(tasks), **answers.end()}

    def client_folder(self):
        return os.path.join(self.env["DCLUSTER_STATE"], "default")

    def busy(self, workers, seconds):
        """`workers` one-core workers of 1 s tasks, `seconds` tasks for each of them."""
        joined = self.join(workers, 1, "1s")
        idle = self.idle_share(5)
        answers = Answers(self.client_folder())
        result = self.measured(lambda: self.run(submission([TRUE], count=workers * seconds)))
        now, peak = machine.memory(self.server)
        return {**result, **answers.end(), "joined": joined, "idle": idle, "now": now, "peak": peak,
                "tasks": workers * seconds}

    def idle_share(self, seconds):
        before = machine.cpu_seconds(self.server)
        time.sleep(seconds)
        return (machine.cpu_seconds(self.server) - before) / seconds

    def rest(self, seconds):
        """Resident bytes and share of a core of server and worker while nothing happens."""
        result = {}
        for pid in machine.marked(self.env[machine.MARK]):
            words = machine.command_line(pid)
            if os.path.basename(words[0]) == os.path.basename(self.binary):
                role = next((role for role in ("server", "worker") if role in words[1:]), None)
                if role:
                    result[role] = [pid, machine.running_seconds(pid)]
        time.sleep(seconds)
        return {
            role: {"memory": machine.memory(pid)[0], "share": (machine.running_seconds(pid) - before) / seconds}
            for role, (pid, before) in result.items()
        }


class Answers:
    """Asks all the time, on a connection of its own, what is cheap to answer; keeps the longest wait."""

    def __init__(self, folder):
        self.client = Client(folder)
        self.worst = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.over.wait(ANSWER_EVERY_SECONDS):
            begin = time.perf_counter()
            self.client.ask("Jobs")
            self.worst = max(self.worst, time.perf_counter() - begin)

    def end(self):
        self.over.set()
        self.thread.join()
        self.client.close()
        return {"answer": self.worst}
