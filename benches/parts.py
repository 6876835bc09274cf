"""The parts of the suite: each runs loads on the systems and keeps what it saw in `Results`.

A figure is kept as {"values": [...], "n": tasks, ...} or {"failed": why}; nothing that failed is left
out. Rounds go over the systems in turn, each system in a session of its own.
"""

import contextlib
import sys
import time

import bed
import loads
from session import Failed, Session

SYSTEMS = ("xargs", "parallel", "dcluster", "hyperqueue", "dask", "parsl", "ray")
CORES = 2
# Seconds that `xargs -P2` takes for one `true` on a machine that is not slow; the sizes below are for it.
USUAL_SECONDS = 0.8e-3


def scale(quick):
    """By how much loads are made smaller: 1, less on a slow or busy machine, so that a run ends in time."""
    with Session("xargs") as session:
        session.ask("start", 60, cores=CORES)
        seconds = min(session.ask("flat", 60, n=300)["seconds"] / 300 for _ in range(3))
    found = max(0.05, min(1.0, USUAL_SECONDS / seconds)) * (0.1 if quick else 1)
    say(f"bench: a process takes {1e6 * seconds:,.0f} µs; loads are of {100 * found:.0f} % of their full size")
    return found


class Results:
    """What was measured: part → row → system → figure. Filled by the parts, read by report and plots."""

    def __init__(self):
        self.parts = {}
        self.versions = {}
        self.part = None

    def keep(self, row, system, value, **more):
        """Adds a figure to a row; further ones of the same row and system make it a list of rounds."""
        figure = self.parts.setdefault(self.part, {}).setdefault(row, {}).setdefault(system, {"values": []})
        figure["values"].append(value)
        for key, item in more.items():
            if key in ("cpu", "turn", "answer") and key in figure:
                item = max(item, figure[key]) if key != "cpu" else min(item, figure[key])
            figure[key] = item

    def fail(self, row, system, why):
        """A round that gave no figure. It is told only when no round gave one."""
        self.parts.setdefault(self.part, {}).setdefault(row, {}).setdefault(system, {"values": []})["failed"] = why
        say(f"  {system:12}{row}: {why}")


def say(text):
    """Progress, on standard error: the report is on standard output."""
    print(text, file=sys.stderr, flush=True)


class Part:
    """What the parts share: a session's calls, kept as figures, and the minutes a part may take."""

    MINUTES = 3

    def __init__(self, results, options):
        self.results, self.options = results, options
        self.deadline = time.monotonic() + 60 * self.MINUTES

    def run_all(self):
        """Rounds, until the time of this part is used up; there is always one."""
        for number in range(self.options.rounds):
            if number and time.monotonic() > self.deadline:
                say(f"  no time for round {number + 1}")
                return
            say(f"{type(self).__name__.lower()}, round {number + 1} of {self.options.rounds}")
            self.run(number)

    def size(self, n, least=10):
        """A number of tasks, scaled."""
        return max(least, int(n * self.options.scale))

    @contextlib.contextmanager
    def session(self, system, cores=CORES, start="start"):
        """A session in which the system is up; `None` when it does not come up."""
        with Session(system) as session:
            try:
                self.results.versions[system] = session.ask("version", 60)
                begin = time.perf_counter()
                if start == "start":
                    session.ask("start", 90, cores=cores)
                else:
                    session.ask(start, 90)
                session.seconds = time.perf_counter() - begin
            except Failed as why:
                session.failed = str(why)
                self.results.versions.setdefault(system, str(why))
            else:
                session.failed = None
            yield session

    def figure(self, row, session, call, patience, value, **args):
        """Asks a session and keeps `value(answer)`. Returns the answer, or None when there was none."""
        try:
            if session.failed:
                raise Failed(session.failed)
            answer = session.ask(call, patience, **args)
        except Failed as why:
            self.results.fail(row, session.peer, str(why))
            # A session that was ended has lost what was started in it.
            if session.process is None:
                session.failed = session.failed or f"ended at `{row}`: {why}"
            return None
        more = {"n": args["n"]} if "n" in args else {}
        if isinstance(answer, dict):
            more |= {key: answer[key] for key in ("cpu", "turn", "answer", "tasks") if key in answer}
        kept = value(answer)
        self.results.keep(row, session.peer, kept, **more)
        if isinstance(kept, dict):
            kept = ", ".join(f"{key} {item:,.4g}" for key, item in kept.items())
        say(f"  {session.peer:12}{row}: {kept if isinstance(kept, str) else f'{kept:,.4g}'}")
        return answer


def middle(values):
    """The median."""
    return sorted(values)[len(values) // 2]


class Tasks(Part):
    """Command tasks, calls, single tasks and graphs, on two real cores."""

    # Tasks of a load: fewer where a system is slow, so that all takes minutes.
    FLAT = {"xargs": 5000, "parallel": 500, "dcluster": 5000, "hyperqueue": 1000, "dask": 1000, "parsl": 500,
            "ray": 1000}
    CALLS = {"dask": 5000, "parsl": 2000, "ray": 5000}
    GRAPHS = {
        "chain": {"dcluster": [1000], "hyperqueue": [100], "dask": [1000], "parsl": [1000], "ray": [1000]},
        "fan": {"dcluster": [1000]},
        "tree": {"dcluster": [1024]},
        "layers": {"dcluster": [20, 100]},
    }
    LIMIT = 40
    MINUTES = 5

    def run(self, number):
        for system in self.options.systems:
            self.round(system, number)

    def round(self, system, number):
        def rate(answer):
            return answer["seconds"]

        with self.session(system) as session:
            if system not in ("xargs", "parallel"):
                self.first(session)
            self.figure("single task", session, "one", self.LIMIT, middle, n=20)
            if system == "dcluster":
                self.figure("single task, connected", session, "one_connected", self.LIMIT, middle, n=20)
            n = self.size(self.FLAT[system])
            self.figure("commands", session, "flat", self.LIMIT, rate, n=n)
            if system == "dcluster":
                for way in ("map", "quiet"):
                    self.figure(f"commands, {way}", session, "flat", self.LIMIT, rate, n=n, way=way)
            if system in self.CALLS:
                self.figure("calls", session, "calls", self.LIMIT, rate, n=self.size(self.CALLS[system]))
            # The slow ones only twice: once would be chance, three times would take too long.
            if system not in ("xargs", "parallel") and number < 2:
                self.graphs(session)
            if number == 0 and system not in ("xargs", "parallel"):
                self.rest(session)
        if system == "dcluster" and number < 2:
            with self.session(system, start="start_empty") as session:
                self.figure("join", session, "join", 30, float, workers=1, cores=CORES)
                self.graphs(session, ", simulated")

    def graphs(self, session, way=""):
        """All shapes."""
        for shape, sizes in self.GRAPHS.items():
            size = [*sizes.get(session.peer, sizes["dcluster"])]
            size[0] = self.size(size[0], 2)
            if shape == "tree":
                size[0] = 1 << max(2, size[0].bit_length() - 1)
            self.figure(shape + way, session, "graph", self.LIMIT, lambda answer: answer["seconds"], shape=shape,
                        size=size)

    def first(self, session):
        """From nothing to the first result: the client's Python has started and imported the library before."""
        begin = time.perf_counter()
        try:
            if session.failed:
                raise Failed(session.failed)
            if session.peer == "dcluster":
                answer = session.ask("first", 60)
                self.results.keep("up", session.peer, answer["up"])
                seconds = answer["first"]
            else:
                session.ask("one", 60, n=1)
                seconds = session.seconds + time.perf_counter() - begin
            self.results.keep("first task", session.peer, seconds)
        except Failed as why:
            self.results.fail("first task", session.peer, str(why))

    def rest(self, session):
        """Memory and processor time of the idle system."""
        if session.failed:
            return
        time.sleep(1)
        if session.peer == "dcluster":
            for role, seen in session.ask("rest", 60, seconds=5).items():
                self.results.keep("idle memory", f"dcluster {role}", seen["memory"])
                self.results.keep("idle share", f"dcluster {role}", seen["share"])
        else:
            resident, share = session.idle(5)
            self.results.keep("idle memory", session.peer, resident)
            self.results.keep("idle share", session.peer, share)


class Scheduling(Part):
    """Tasks that are not spawned: simulated workers."""

    SHAPES = {"1 × 2": (1, 2, 100_000), "1 × 64": (1, 64, 100_000), "16 × 128": (16, 128, 500_000)}

    def run(self, number):
        for row, (workers, cores, n) in self.SHAPES.items():
            with self.session("dcluster", start="start_empty") as session:
                joined = self.figure(f"join {row}", session, "join", 30, float, workers=workers, cores=cores)
                if joined is not None:
                    n = self.size(n)
                    self.figure(row, session, "pretend", 40, lambda answer: answer["seconds"], n=n)


class Memory(Part):
    """What held tasks cost the server, and how fast a million is accepted."""

    SIZES = (10_000, 100_000, 1_000_000)

    def run_all(self):
        sizes = self.SIZES[:2] if self.options.quick else self.SIZES
        for n in sizes:
            say(f"memory, {n:,} tasks")
            with self.session("dcluster", start="start_empty") as session:
                self.held(session, n, "array")
                self.figure(f"finish {n}", session, "finish", 60, lambda answer: answer, workers=16, cores=128)
            if n < 1_000_000:
                with self.session("dcluster", start="start_empty") as session:
                    self.held(session, n, "submissions")
            for system in ("hyperqueue", "dask"):
                if system in self.options.systems and not (system == "dask" and n > 100_000):
                    with self.session(system, cores=0) as session:
                        self.held(session, n, None)

    def held(self, session, n, way):
        args = {"n": n} | ({"way": way} if way else {})
        self.figure(f"{way or 'tasks'} {n}", session, "hold", 60, lambda answer: answer, **args)


class Mix(Part):
    """The hard mix, against the bounds and HyperQueue."""

    def run_all(self):
        for system in ("dcluster", "hyperqueue"):
            if system not in self.options.systems:
                continue
            say(f"mix, {system}")
            with Session(system) as session:
                session.failed = None
                if system == "hyperqueue":
                    try:
                        session.ask("start", 30, cores=0)
                    except Failed as why:
                        session.failed = str(why)
                limit = 60
                self.figure("mix", session, "mix", limit + 30, lambda answer: answer, limit=limit)
        tasks = loads.mix()
        self.results.keep("bound", "area", loads.mix_bound(tasks))
        self.results.keep("bound", "greedy", loads.mix_greedy(tasks))


class Workers(Part):
    """Many simulated workers of one core, each with tasks of 1 s."""

    SIZES = (100, 1_000, 10_000)

    def run_all(self):
        for workers in self.SIZES[:2] if self.options.quick else self.SIZES:
            say(f"workers, {workers:,}")
            with self.session("dcluster", start="start_empty") as session:
                seconds = 5 if self.options.quick else 10
                args = {"workers": workers, "seconds": seconds}
                self.figure(f"workers {workers}", session, "busy", 180, lambda answer: answer, **args)


class Scaling(Part):
    """A day in minutes on a real Slurm, the number of jobs left to the system. What it cost is what Slurm says."""

    LIMIT = 700
    # Seconds in which all jobs must be gone after the last task; longer idle than that is billed no further.
    SETTLE = 180

    def run_all(self):
        """One round: it takes minutes, and little of it is chance."""
        systems = [name for name, option in (("dcluster", "dcluster"), ("jobqueue", "dask"))
                   if option in self.options.systems]
        try:
            with bed.slurm():
                for system in systems:
                    say(f"scaling, {system}")
                    self.day(system)
        except OSError as why:
            for system in systems:
                self.results.fail("day", system, str(why))
        self.results.keep("bound", "makespan", loads.day_bound())
        self.results.keep("bound", "useful", loads.day_useful())

    def day(self, system):
        with self.session(system, start="start_slurm") as session:
            try:
                if session.failed:
                    raise Failed(session.failed)
                answer = session.ask("day", self.LIMIT)
                settled = self.settle(answer["name"])
                left = bed.unfinished(answer["name"])
            except Failed as why:
                self.results.fail("day", system, str(why))
                return
        self.settle(answer["name"])
        jobs, runs = bed.jobs(answer["name"], answer["begin"]), loads.runs(answer["runs"])
        ran = [job for job in jobs if job["JobID"] in runs["jobs"]]
        started = [job for job in jobs if int(job["ElapsedRaw"]) > 0]
        figure = {
            "submitted": len(jobs), "nothing": len(jobs) - len(ran), "never started": len(jobs) - len(started),
            "billed": sum(int(job["ElapsedRaw"]) * int(job["AllocCPUS"]) for job in jobs),
            "makespan": answer["seconds"], "cut": runs["cut"], "failed": answer["failed"], "twice": runs["twice"],
            "settled": settled, "left": left,
        }
        self.results.keep("day", system, figure)
        say(f"  {system:12}" + ", ".join(f"{key} {value}" for key, value in figure.items()))

    def settle(self, name):
        """Seconds until no job is left, or as many as it may take."""
        begin = time.monotonic()
        while bed.unfinished(name) and time.monotonic() - begin < self.SETTLE:
            time.sleep(1)
        return time.monotonic() - begin


PARTS = {
    "tasks": Tasks, "scheduling": Scheduling, "memory": Memory, "mix": Mix, "workers": Workers, "scaling": Scaling,
}
