"""HyperQueue, from PyPI: `LocalCluster`, server and workers in one process, and a client in another.

The wheel has no command line and no arrays: every task is a Python object. It cannot be asked for
workers that run nothing (that is a build option), and its wait looks only once a second; so every load
ends with a task that comes after all others and makes a file, and we watch for that.
"""

import os
import subprocess
import sys
import time

import loads
import machine
from peers import TRUE, Base

SERVER = """
import sys
from hyperqueue.cluster import LocalCluster, WorkerConfig
cluster = LocalCluster(sys.argv[1])
for cores in sys.argv[2:]:
    cluster.start_worker(WorkerConfig(cores=int(cores)))
print("ready", flush=True)
sys.stdin.read()
"""


class Peer(Base):
    def start(self, cores):
        super().start(cores)
        self.serve([cores] if cores else [])

    def serve(self, workers):
        from hyperqueue import Client

        home = os.path.join(self.folder, "server")
        os.makedirs(home, exist_ok=True)
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, home, *map(str, workers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        # It prints a table before.
        while line := self.server.stdout.readline():
            if line == "ready\n":
                break
        self.client = Client(home)
        self.files = 0

    def stop(self):
        # It does not hear SIGTERM.
        self.server.kill()

    def version(self):
        from importlib.metadata import version

        return f"hyperqueue {version('hyperqueue')}, LocalCluster"

    def job(self, graph, last=True):
        """Returns a job of `true`, and the file that a last task makes."""
        from hyperqueue import Job

        self.files += 1
        file = os.path.join(self.folder, f"done{self.files}")
        job, tasks = Job(max_fails=None), []
        for after in graph:
            deps = [tasks[i] for i in after]
            tasks.append(job.program([TRUE], stdout=None, stderr=None, deps=deps))
        if last:
            ends = [tasks[i] for i in loads.sinks(graph)]
            job.program(["/bin/touch", file], stdout=None, stderr=None, deps=ends)
        return job, file

    def run(self, graph):
        job, file = self.job(graph)
        before = machine.cpu_seconds(self.server.pid)
        begin = time.perf_counter()
        self.client.submit(job)
        while not os.path.exists(file):
            time.sleep(0.0005)
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "cpu": machine.cpu_seconds(self.server.pid) - before, "tasks": len(graph)}

    def one(self, n):
        from hyperqueue import Job

        times = []
        for i in range(n):
            file = os.path.join(self.folder, f"one{i}")
            job = Job()
            job.program(["/bin/touch", file], stdout=None, stderr=None)
            begin = time.perf_counter()
            self.client.submit(job)
            while not os.path.exists(file):
                time.sleep(0.0002)
            times.append(time.perf_counter() - begin)
            os.unlink(file)
        return times

    def flat(self, n):
        return self.run([[] for _ in range(n)])

    def graph(self, shape, size):
        return self.run(loads.graph(shape, *size))

    def hold(self, n):
        before, _ = machine.memory(self.server.pid)
        job, _ = self.job([[] for _ in range(n)], last=False)
        begin = time.perf_counter()
        self.client.submit(job)
        accepted = time.perf_counter() - begin
        after, peak = machine.memory(self.server.pid)
        return {"accepted": accepted, "before": before, "after": after, "peak": peak}

    def mix(self, limit):
        from hyperqueue import Job
        from hyperqueue.ffi.protocol import ResourceRequest

        self.stop()
        self.serve([loads.MIX_CORES] * loads.MIX_WORKERS)
        file = os.path.join(self.folder, "mix")
        open(file, "w").close()
        words = ["/bin/sh", "-c", f"sleep {loads.MIX_SECONDS}; echo >> {file}"]
        job, tasks = Job(max_fails=None), loads.mix()
        for cores, priority in tasks:
            request = ResourceRequest(cpus=cores)
            job.program(words, stdout=None, stderr=None, priority=priority, resources=request)
        begin = time.perf_counter()
        number = self.client.submit(job).id
        worst = 0
        while time.perf_counter() - begin < limit and os.path.getsize(file) < len(tasks):
            asked = time.perf_counter()
            self.client.connection.get_failed_tasks([number])
            worst = max(worst, time.perf_counter() - asked)
            time.sleep(0.02)
        seconds, done = time.perf_counter() - begin, os.path.getsize(file)
        return {"seconds": seconds, "finished": done, "tasks": len(tasks), "answer": worst}
