"""Makes docs/benchmarks.md of the results. Pure: text in, text out."""

import figures
import loads
from figures import Figures

SYSTEM_NAMES = {
    "xargs": "xargs -P2", "parallel": "GNU parallel", "dcluster": "dcluster", "hyperqueue": "HyperQueue",
    "dask": "Dask", "parsl": "Parsl", "ray": "Ray", "jobqueue": "dask-jobqueue",
}
PEERS = ("hyperqueue", "dask", "parsl", "ray")

HEAD = """\
# Benchmarks

<!-- Written by benches/run. Do not edit: run `make bench`. -->

Written by `make bench` on {date}, dcluster at commit {commit}, in {minutes:.0f} minutes.

- Machine: {machine}. Every system has {cores} cores. Load of the machine before: {load:.1f}.
- All systems run on it in the same run, in turn, {rounds} rounds (graphs 2, the rest 1); the best round counts.
- Loads are of {percent:.0f} % of their full size: less than 100 on a machine that is slow or busy.
- A peer that hangs, fails or has no such feature is shown with the reason.
- Ratios compare within a row or column; the text before the table says which way is better.
{quick}
| system | version |
|---|---|
{versions}
"""


SCALING = """\
## Scaling on Slurm

A day in minutes on a real Slurm of 16 nodes, of which most are free: {load}.
Tasks use one core. Jobs of {cores} cores and a walltime of {walltime} s, at most {jobs} of them, none at first. `dcluster up --min 0 --max {jobs}` and
`SLURMCluster(...).adapt(minimum=0, maximum={jobs})`, both with their defaults; dask-jobqueue's workers have the
`--lifetime` that its documentation advises, {lifetime:.0%} of the walltime. Tasks of both need {useful:,} core-seconds,
and no schedule takes less than {bound:.0f} s. Jobs and core-seconds are what `sacct` says, cut runs are what tasks
wrote: runs that began and never ended. The Dask client lets go of each result as it comes. One round.

"""


def table(head, rows):
    """A Markdown table; the first column is text, the others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def page(results):
    """Returns the whole page."""
    meta = results["meta"]
    data = Figures(results["parts"])
    versions = "\n".join(f"| {SYSTEM_NAMES[name]} | {version} |" for name, version in results["versions"].items())
    quick = "- **A quick run: figures are rough.**\n" if meta["quick"] else ""
    head = HEAD.format(**meta | {"quick": quick, "percent": 100 * meta["scale"], "versions": versions})
    sections = [targets, commands, scheduling, latency, graphs, mix, memory, workers, scaling, idle, pauses]
    return "\n".join([head] + [text for section in sections if (text := section(data))])


def targets(data):
    """Goal, measured, best peer: the table of the design."""
    rows = figures.targets(data)
    if not rows:
        return ""
    lines = []
    for name, goal, ours, peer, ratio, met in rows:
        lines.append((name, goal, ours, peer, ratio, {True: "yes", False: "**no**", None: "?"}[met]))
    return (
        "## Targets\n\nRatio: dcluster against the best peer of this run, in time or memory; below 1 dcluster is "
        "better.\n\n" + table(("", "target", "dcluster", "best peer here", "ratio", "met"), lines)
    )


def commands(data):
    """Command tasks."""
    rows = []
    floor = data.per_task("tasks", "commands", "xargs")
    ways = [("commands", name, SYSTEM_NAMES[name]) for name in ("xargs", "parallel")]
    ways += [
        ("commands", "dcluster", "dcluster submit --array"),
        ("commands, quiet", "dcluster", "dcluster submit --array, output to /dev/null"),
        ("commands, map", "dcluster", "dcluster map"),
    ]
    ways += [("commands", name, SYSTEM_NAMES[name]) for name in PEERS]
    for row, system, name in ways:
        figure = data.get("tasks", row, system)
        if figure is None:
            continue
        if not figure["values"]:
            rows.append((name, "", figure["failed"], "", "", ""))
            continue
        each = data.per_task("tasks", row, system)
        cpu = f"{1e6 * figure['cpu'] / figure['n']:.1f}" if "cpu" in figure else ""
        ratio = f"{each / floor:.2f}" if floor else ""
        rows.append((name, f"{figure['n']:,}", f"{1 / each:,.0f}", f"{1e6 * each:,.0f}", ratio, cpu))
    if not rows:
        return ""
    head = ("", "tasks", "tasks/s", "µs per task", "ratio to xargs", "µs of CPU of the scheduler per task")
    return (
        "## Command tasks\n\nThe program `true`, all tasks independent, two at a time. Ratio: time per task against "
        "`xargs`, which does nothing but start processes; less is better. Dask and Ray start the program from a "
        "Python function, Parsl has a shell in between. The scheduler of HyperQueue's wheel is one process with its "
        "worker: its figure holds both.\n\n" + table(head, rows) + "\n![Tasks per second](benchmarks/rates.svg)\n"
    )


def scheduling(data):
    """Tasks that are not spawned."""
    rows = []
    for row, workers in (("1 × 2", "1 worker of 2 cores"), ("1 × 64", "1 of 64"), ("16 × 128", "16 of 128")):
        figure = data.get("scheduling", row, "dcluster")
        if figure is None:
            continue
        if not figure["values"]:
            rows.append((f"dcluster, {workers}", "", figure["failed"], "", ""))
            continue
        each = data.per_task("scheduling", row, "dcluster")
        cpu = 1e6 * figure["cpu"] / figure["n"]
        rows.append((f"dcluster, {workers}", f"{figure['n']:,}", f"{1 / each:,.0f}", f"{1e6 * each:.2f}", f"{cpu:.2f}"))
    if not rows and not data.row("tasks", "calls"):
        return ""
    for system in PEERS[1:]:
        figure = data.get("tasks", "calls", system)
        if figure is None:
            continue
        name = f"{SYSTEM_NAMES[system]}, no-op calls, 2 workers"
        if not figure["values"]:
            rows.append((name, "", figure["failed"], "", ""))
            continue
        each = data.per_task("tasks", "calls", system)
        cpu = f"{1e6 * figure['cpu'] / figure['n']:.2f}" if "cpu" in figure else ""
        rows.append((name, f"{figure['n']:,}", f"{1 / each:,.0f}", f"{1e6 * each:,.2f}", cpu))
    rows.append(("HyperQueue", "", "the wheel cannot: it is a build option (see commands above)", "", ""))
    head = ("", "tasks", "tasks/s", "µs per task", "µs of CPU of the scheduler per task")
    return (
        "## Scheduling alone\n\nTasks that start no process. dcluster: simulated workers, all in one process, with "
        "TLS and journal as always. Dask, Parsl, Ray: calls of an empty Python function in warm workers.\n\n"
        + table(head, rows)
    )


def latency(data):
    """Single tasks, hops, first task."""
    rows = []
    for system in SYSTEM_NAMES:
        first = data.text("tasks", "first task", system, 1e3, "ms")
        one = data.text("tasks", "single task", system, 1e3, "ms")
        hop = data.per_task("tasks", "chain", system)
        if first or one or hop:
            failed = (data.get("tasks", "chain", system) or {}).get("failed", "")
            rows.append((SYSTEM_NAMES[system], first, one, figures.quantity(hop, 1e3, "ms") if hop else failed))
        if system == "dcluster" and (one := data.text("tasks", "single task, connected", system, 1e3, "ms")):
            rows.append(("dcluster, by a connected client", "", one, ""))
    if not rows:
        return ""
    head = ("", "from nothing to the first result", "one task, submitted and waited for", "dependency hop")
    return (
        "## Latency\n\nOne task: median of 20, best round; xargs, parallel and dcluster with the start of the "
        "command, the others by a client that is connected. A hop: a chain of tasks, time per task. dcluster's and "
        "HyperQueue's tasks are processes, the others' calls in warm workers.\n\n" + table(head, rows)
        + "\n![Latency](benchmarks/latency.svg)\n"
    )


def graphs(data):
    """Graph shapes, a column for each system."""
    names = {
        "chain": "chain", "fan": "fan-out, fan-in", "tree": "tree reduction",
        "layers": "random layers (seed 4)",
    }
    systems = [name for name in ("dcluster", *PEERS) if any(data.get("tasks", shape, name) for shape in names)]
    columns = [(name, "", SYSTEM_NAMES[name]) for name in systems]
    columns[1:1] = [("dcluster", ", simulated", "dcluster, simulated")]
    rows = []
    for shape, name in names.items():
        ours = data.per_task("tasks", shape, "dcluster")
        cells = [name]
        for system, way, _ in columns:
            each = data.per_task("tasks", shape + way, system)
            figure = data.get("tasks", shape + way, system)
            if each is None:
                cells.append((figure or {}).get("failed", ""))
                continue
            ratio = f" ({each / ours:.1f})" if ours else ""
            cells.append(f"{1e6 * each:,.0f} µs{ratio}, {figure['tasks']:,} tasks")
        rows.append(cells)
    if not systems:
        return ""
    return (
        "## Graphs\n\nTime per task of the whole graph, from submission to the last end; in brackets the ratio to "
        "dcluster: above 1 it is slower. dcluster and HyperQueue start a process for each task, the others call an "
        "empty Python function; dcluster's simulated worker (one, of 2 cores) does not even that.\n\n"
        + table(("", *[name for _, _, name in columns]), rows)
        + "\n![Graphs](benchmarks/graphs.svg)\n"
    )


def mix(data):
    """The hard mix."""
    greedy, area = data.best("mix", "bound", "greedy"), data.best("mix", "bound", "area")
    if not greedy:
        return ""
    rows = [("no schedule is shorter (area)", f"{area:.1f} s", f"{area / greedy:.2f}", "", ""),
            ("greedy list scheduling, on paper", f"{greedy:.1f} s", "1.00", "", "")]
    for system in ("dcluster", "hyperqueue"):
        figure = data.get("mix", "mix", system)
        if figure is None:
            continue
        name = SYSTEM_NAMES[system]
        if not figure["values"]:
            rows.append((name, figure["failed"], "", "", ""))
            continue
        value = figure["values"][0]
        turn = f"{1e3 * value['turn']:.1f} ms" if "turn" in value else ""
        if value["finished"] < value["tasks"]:
            spent = f"{value['finished']} of {value['tasks']} tasks after {value['seconds']:.0f} s"
            rows.append((name, spent, "", f"{1e3 * value['answer']:,.0f} ms", turn))
            continue
        rows.append((name, f"{value['seconds']:.1f} s", f"{value['seconds'] / greedy:.2f}",
                     f"{1e3 * value['answer']:,.0f} ms", turn))
    head = ("", "time", "ratio to greedy", "longest wait for an answer", "longest turn of the server")
    return (
        "## The hard mix\n\n64 workers of 64 cores, 720 tasks of 3 s with 60 sizes from 1 to 64 cores and 32 "
        "priorities. dcluster's workers are simulated, HyperQueue's claim 64 cores each and run `sleep 3`; all its "
        "workers and its server are one process.\n\n" + table(head, rows)
    )


def memory(data):
    """Memory against number of tasks."""
    rows = []
    for system, row, name in (
        ("dcluster", "array", "dcluster, one array"), ("dcluster", "submissions", "dcluster, one submission a task"),
        ("hyperqueue", "tasks", "HyperQueue, one job"), ("dask", "tasks", "Dask"),
    ):
        for n in (10_000, 100_000, 1_000_000):
            figure = data.get("memory", f"{row} {n}", system)
            if figure is None:
                continue
            if not figure["values"]:
                rows.append((name, f"{n:,}", figure["failed"], "", "", ""))
                continue
            value = figure["values"][0]
            done = data.get("memory", f"finish {n}", system) if row == "array" else None
            done = done["values"][0] if done and done["values"] else None
            grown = value["after"] - value["before"]
            rows.append((
                name, f"{n:,}", f"{value['accepted'] * 1e3:,.0f} ms", f"{value['after'] / 1e6:,.1f} MB",
                f"{grown / n:,.0f} B",
                f"{done['now'] / 1e6:,.1f} MB, at most {done['peak'] / 1e6:,.1f} MB" if done else "",
            ))
    if not rows:
        return ""
    head = ("", "tasks", "accepted in", "memory of the server then", "per task", "after all have ended")
    return (
        "## Memory against number of tasks\n\nTasks that wait for a worker; then, for dcluster, 16 simulated workers "
        "of 128 cores end them. HyperQueue's and Dask's clients send each task by itself.\n\n" + table(head, rows)
        + "\n![Memory of the server](benchmarks/memory.svg)\n"
    )


def workers(data):
    """Workers per server."""
    rows = []
    for n in (100, 1_000, 10_000):
        figure = data.get("workers", f"workers {n}", "dcluster")
        if figure is None:
            continue
        if not figure["values"]:
            rows.append((f"{n:,}", figure["failed"], "", "", "", "", ""))
            continue
        value = figure["values"][0]
        rows.append((
            f"{n:,}", f"{value['joined']:.1f} s", f"{value['idle']:.3f}", f"{value['tasks'] / value['seconds']:,.0f}",
            f"{value['cpu'] / value['seconds']:.2f}", f"{value['peak'] / 1e6:,.0f} MB",
            f"{1e3 * value['answer']:,.0f} ms",
        ))
    if not rows:
        return ""
    head = ("workers", "all there after", "cores used by the idle server", "tasks/s",
            "cores used by the server then", "its peak memory", "longest wait for an answer")
    return (
        "## Workers of one server\n\nSimulated workers of one core, all in one process that shares the two cores "
        "with the server; each gets tasks of 1 s, so that n workers could do at most n tasks/s.\n\n"
        + table(head, rows)
    )


def scaling(data):
    """A day on Slurm."""
    bound, useful = data.best("scaling", "bound", "makespan"), data.best("scaling", "bound", "useful")
    if not bound:
        return ""
    rows = []
    for system in ("dcluster", "jobqueue"):
        figure = data.get("scaling", "day", system)
        if figure is None:
            continue
        name = SYSTEM_NAMES[system]
        if not figure["values"]:
            rows.append((name, figure["failed"], *[""] * 8))
            continue
        value = figure["values"][0]
        settled = f"{value['settled']:.0f} s" if not value["left"] else "never"
        rows.append((
            name, value["submitted"], value["nothing"], f"{value['billed']:,}", f"{useful / value['billed']:.0%}",
            f"{value['makespan']:.0f} s", f"{value['makespan'] / bound:.2f}", value["cut"], value["twice"], settled,
        ))
    head = ("", "jobs submitted", "of them ran nothing", "core-seconds billed", "of them useful", "makespan",
            "ratio to the bound", "runs that never ended", "ended runs done again", "jobs gone after")
    load = ", ".join(f"{count} × {seconds} s at {at} s" for at, count, seconds in loads.DAY)
    text = SCALING.format(
        load=load, cores=loads.DAY_CORES, walltime=loads.DAY_WALLTIME_SECONDS, jobs=loads.DAY_JOBS,
        lifetime=loads.DAY_LIFETIME, useful=useful, bound=bound,
    )
    return text + table(head, rows)


def idle(data):
    """Idle systems."""
    rows = []
    for system, figure in data.row("tasks", "idle memory").items():
        share = data.best("tasks", "idle share", system)
        name = system if system.startswith("dcluster") else f"{SYSTEM_NAMES[system]}, all processes"
        rows.append((name, f"{min(figure['values']) / 1e6:,.1f} MB", f"{100 * share:.2f} %"))
    if not rows:
        return ""
    return (
        "## Idle\n\nResident memory and share of one core over 5 s, two workers or cores, after the loads of a round. "
        "Memory of several processes is added up, shared pages included.\n\n" + table(("", "memory", "of a core"), rows)
    )


def pauses(data):
    """The longest turn under each load."""
    rows = []
    for part, row, name in figures.LOADS:
        turn = data.turn(part, row)
        if turn is not None:
            rows.append((name, f"{1e3 * turn:.1f} ms"))
    if not rows:
        return ""
    return (
        "## Pauses of the server\n\nThe longest time in which dcluster's server was busy with one turn of its loop "
        "and answered nobody (`server.longest_turn_seconds` in [json.md](json.md)), over all rounds of a load.\n\n"
        + table(("load", "longest turn"), rows)
    )
