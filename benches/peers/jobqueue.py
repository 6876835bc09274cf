"""dask-jobqueue on Slurm, for the part `scaling`: adaptive with its defaults, lifetimes as its documentation advises.

See "How to handle job queueing system walltime killing workers" in
https://jobqueue.dask.org/en/latest/clusters-advanced-tips-and-tricks.html.
"""

import os
import queue
import time
import uuid

import loads
from peers import Base

NAME = "bench-dask"


def task(file, name, seconds):
    """Runs in a worker."""
    run = uuid.uuid4().hex
    job = os.environ.get("SLURM_JOB_ID", "?")
    say(file, "start", name, run, job)
    time.sleep(seconds)
    say(file, "end", name, run, job)


def say(file, *words):
    with open(file, "a") as out:
        out.write(" ".join([*words, f"{time.time():.3f}"]) + "\n")


class Peer(Base):
    def start_slurm(self):
        from dask_jobqueue import SLURMCluster
        from distributed import Client

        seconds = loads.DAY_WALLTIME_SECONDS
        self.cluster = SLURMCluster(
            cores=loads.DAY_CORES, processes=1, memory="1GB", walltime=f"00:{seconds // 60:02}:{seconds % 60:02}",
            job_name=NAME, log_directory=os.path.join(self.folder, "logs"), local_directory=self.folder,
            worker_extra_args=["--lifetime", f"{seconds * loads.DAY_LIFETIME:.0f}s",
                               "--lifetime-stagger", f"{seconds * loads.DAY_STAGGER:.0f}s"],
            scheduler_options={"host": "127.0.0.1", "dashboard_address": None},
        )
        self.cluster.adapt(minimum=0, maximum=loads.DAY_JOBS)
        self.client = Client(self.cluster)

    def day(self):
        file = os.path.join(self.folder, "runs")
        begin = time.time()
        # Each result is let go of as it comes, as Dask's documentation advises: else it is lost, and made again,
        # when the worker that holds it leaves.
        held, ended = {}, queue.Queue()

        def done(future):
            held.pop(future.key, None)
            ended.put(future.status)

        count_all = 0
        for part, (at, count, seconds) in enumerate(loads.DAY):
            time.sleep(max(0.0, begin + at - time.time()))
            names = [f"{part}.{i}" for i in range(count)]
            futures = self.client.map(lambda name, s=seconds: task(file, name, s), names, pure=False)
            count_all += len(futures)
            held.update((future.key, future) for future in futures)
            for future in futures:
                future.add_done_callback(done)
            del future, futures
        failed = sum(ended.get() != "finished" for _ in range(count_all))
        end = time.time()
        return {"begin": begin, "seconds": end - begin, "failed": failed, "name": NAME, "runs": open(file).read()}

    def stop(self):
        self.client.close()
        self.cluster.close()

    def version(self):
        import dask_jobqueue
        import distributed

        return f"dask-jobqueue {dask_jobqueue.__version__}, distributed {distributed.__version__}"
