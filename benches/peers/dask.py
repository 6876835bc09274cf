"""Dask distributed: scheduler, one-thread workers and client are processes of their own.

`worker-saturation` is `inf`, the setting with the highest rate; the default sends a worker at most two
tasks at a time and is up to five times slower.
"""

import os
import subprocess
import sys
import time

import loads
import machine
from peers import TRUE, Base, timed

SETTINGS = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf"}


def nothing(*_):
    return None


def command():
    subprocess.run([TRUE], check=True)


class Peer(Base):
    def start(self, cores):
        super().start(cores)
        from distributed import Client

        self.processes = []
        scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.file = os.path.join(self.folder, "scheduler.json")
        self.scheduler = self.spawn([*scheduler, "--scheduler-file", self.file])
        deadline = time.monotonic() + 30
        while not os.path.exists(self.file) and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(cores):
            self.spawn(["distributed.cli.dask_worker", "--scheduler-file", self.file, "--nthreads", "1",
                        "--no-nanny", "--no-dashboard", "--local-directory", self.folder])
        self.client = Client(scheduler_file=self.file)
        if cores:
            self.client.wait_for_workers(cores, timeout=60)

    def spawn(self, words):
        process = subprocess.Popen([sys.executable, "-m", *words], env={**os.environ, **SETTINGS})
        self.processes.append(process)
        return process

    def stop(self):
        self.client.close()
        for process in self.processes:
            process.terminate()

    def version(self):
        import distributed

        return f"distributed {distributed.__version__}, worker-saturation inf"

    def one(self, n):
        return [timed(lambda: self.client.submit(nothing, pure=False).result()) for _ in range(n)]

    def many(self, function, n):
        from distributed import wait

        def run():
            futures = self.client.map(lambda _: function(), range(n), pure=False)
            wait(futures)
            assert all(future.status == "finished" for future in futures)

        before = machine.cpu_seconds(self.scheduler.pid)
        seconds = timed(run)
        return {"seconds": seconds, "cpu": machine.cpu_seconds(self.scheduler.pid) - before}

    def flat(self, n):
        return self.many(command, n)

    def calls(self, n):
        return self.many(nothing, n)

    def graph(self, shape, size):
        from distributed import wait

        graph = loads.graph(shape, *size)

        def run():
            futures = []
            for after in graph:
                futures.append(self.client.submit(nothing, *[futures[i] for i in after], pure=False))
            wait(futures)

        return {"seconds": timed(run), "tasks": len(graph)}

    def hold(self, n):
        before, _ = machine.memory(self.scheduler.pid)
        begin = time.perf_counter()
        futures = self.client.map(nothing, range(n), pure=False)
        while self.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) < n:
            time.sleep(0.05)
        accepted = time.perf_counter() - begin
        after, _ = machine.memory(self.scheduler.pid)
        del futures
        return {"accepted": accepted, "before": before, "after": after}
