#!/usr/bin/env python3
"""Measures what dcluster itself costs, against `xargs -P` in the same run, and prints a table.

    benches/spine.py [N] [--rounds R] [--cores C]

N tasks (10,000) of `true` through xargs, `dcluster map` and `dcluster submit --array`; best of R
rounds (3), taken in turn, on C cores (2). Then start-up times and the memory of an idle server
and worker. $DCLUSTER is the binary (target/release/dcluster). It has a state folder of its own,
so that no other cluster is touched, and takes its cluster down at the end, whatever happens.
Standard library only.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
DCLUSTER = os.path.abspath(
    os.environ.get("DCLUSTER") or os.path.join(ROOT, "target", "release", "dcluster")
)
TRUE = shutil.which("true")
LIMIT_SECONDS = 600  # for any one command: a benchmark that hangs says so


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("n", nargs="?", type=int, default=10_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    if not os.access(DCLUSTER, os.X_OK):
        sys.exit(f"spine.py: no binary {DCLUSTER}: run `make build`, or set DCLUSTER")

    with tempfile.TemporaryDirectory(prefix="dcluster-bench.") as folder:
        env = {k: v for k, v in os.environ.items() if not k.startswith("DCLUSTER")}
        env["DCLUSTER_STATE"] = os.path.join(folder, "state")
        bench = Bench(env, folder, options.cores)
        try:
            start = bench.start_up(options.rounds)
            rates, latency = bench.tasks(options.n, options.rounds)
            memory = bench.idle_memory()
        finally:
            bench.down()
    report(options, start, rates, latency, memory)


class Bench:
    def __init__(self, env, folder, cores):
        self.env, self.folder, self.cores = env, folder, cores

    def run(self, *argv, stdin=subprocess.DEVNULL):
        """Runs a command to its end and returns its seconds; a failure ends the benchmark."""
        begin = time.perf_counter()
        done = subprocess.run(
            argv, env=self.env, cwd=self.folder, stdin=stdin,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LIMIT_SECONDS,
        )
        seconds = time.perf_counter() - begin
        if done.returncode != 0:
            message = done.stderr.decode(errors="replace")[-2000:]
            sys.exit(f"spine.py: exit {done.returncode} from {' '.join(argv[:8])} ...\n{message}")
        return seconds

    def dcluster(self, *argv):
        return self.run(DCLUSTER, *argv)

    def up(self):
        return self.dcluster(
            "up", "--backend", "local", "--cores", str(self.cores), "--jobs", "1", "--wait", "1"
        )

    def down(self):
        subprocess.run(
            [DCLUSTER, "down"], env=self.env, cwd=self.folder, timeout=LIMIT_SECONDS,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def start_up(self, rounds):
        """Returns the best seconds of `up` until ready, the first task after it, and `down`.

        The cluster of the last round stays up.
        """
        ready, first, gone = [], [], []
        for i in range(rounds):
            ready.append(self.up())
            first.append(ready[-1] + self.dcluster("submit", "--wait", "--", TRUE))
            if i < rounds - 1:
                gone.append(self.dcluster("down"))
        return min(ready), min(first), min(gone, default=None)

    def tasks(self, n, rounds):
        """Returns the best tasks/s of each way, and the best seconds of one `submit --wait`."""
        path = os.path.join(self.folder, "arguments")
        with open(path, "w") as file:
            file.writelines(f"{i}\n" for i in range(1, n + 1))
        numbers = [str(i) for i in range(1, n + 1)]
        # Linux takes arguments of 2 MB in all; a longer list would have to come another way.
        if sum(len(x) + 9 for x in numbers) > 1_800_000:
            sys.exit("spine.py: N is too large for one command line (about 120,000)")

        def xargs():
            with open(path) as stdin:
                return self.run("xargs", f"-P{self.cores}", "-n1", TRUE, stdin=stdin)

        ways = {
            f"xargs -P{self.cores} -n1 true": xargs,
            "dcluster map true ::: 1..N": lambda: self.dcluster("map", TRUE, ":::", *numbers),
            "dcluster submit --wait --array 1-N -- true": lambda: self.dcluster(
                "submit", "--wait", "--array", f"1-{n}", "--", TRUE
            ),
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for name, way in ways.items():
                best[name] = min(best[name], way())
        latency = min(self.dcluster("submit", "--wait", "--", TRUE) for _ in range(20))
        return {name: n / seconds for name, seconds in best.items()}, latency

    def idle_memory(self):
        """Returns {"server": MB, "worker": MB} of resident memory, and CPU in %, over 5 s idle."""
        before = self.processes()
        time.sleep(5)
        after = self.processes()
        tick = os.sysconf("SC_CLK_TCK")
        result = {}
        for pid, (role, rss, cpu) in after.items():
            if pid in before:
                result[role] = (rss, 100 * (cpu - before[pid][2]) / tick / 5)
        return result

    def processes(self):
        """Finds our processes by the state folder in their environment, which children inherit.

        Returns {pid: (role, resident MB, CPU ticks)}.
        """
        mark = b"DCLUSTER_STATE=" + self.env["DCLUSTER_STATE"].encode()
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if mark not in file.read().split(b"\0"):
                        continue
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    argv = file.read().split(b"\0")
                with open(f"/proc/{pid}/statm") as file:
                    rss = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
                with open(f"/proc/{pid}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if os.path.basename(argv[0]).startswith(b"dcluster"):
                role = next((r for r in ("server", "worker") if r.encode() in argv[1:]), None)
                if role:
                    found[pid] = (role, rss, int(fields[11]) + int(fields[12]))
        return found


def report(options, start, rates, latency, memory):
    print(f"{options.n:,} tasks of `true` on {options.cores} cores, best of {options.rounds}\n")
    print(f"{'':44}{'tasks/s':>12}{'µs/task':>12}{'ratio':>10}")
    base = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"{name:44}{rate:12,.0f}{1e6 / rate:12,.1f}{rate / base:10.2f}")
    print("ratio: tasks/s against xargs; more is better\n")
    ready, first, gone = start
    rows = [
        ("up --backend local until ready", f"{ready * 1e3:,.0f} ms", ""),
        ("up and the first task done", f"{first * 1e3:,.0f} ms", "300 ms"),
        ("submit --wait true", f"{latency * 1e3:,.1f} ms", "5 ms"),
    ]
    if gone is not None:
        rows.append(("down", f"{gone * 1e3:,.0f} ms", ""))
    for role in ("server", "worker"):
        rss, cpu = memory.get(role, (None, None))
        value = "not found" if rss is None else f"{rss:.1f} MB, {cpu:.1f} %"
        rows.append((f"idle {role}, memory (RSS) and CPU", value, "12 MB, 0.1 %"))
    print(f"{'':44}{'measured':>16}{'at most':>16}")
    for row in rows:
        print("{:44}{:>16}{:>16}".format(*row))


if __name__ == "__main__":
    main()
