"""Figures out of the results, for the tables and the plots: best rounds, times per task, targets. Pure."""

# Loads of dcluster in the order of the page: part, row, name.
LOADS = [
    ("tasks", "commands", "array of commands"),
    ("tasks", "commands, map", "map"),
    ("tasks", "chain", "chain"),
    ("tasks", "fan", "fan-out, fan-in"),
    ("tasks", "tree", "tree reduction"),
    ("tasks", "layers", "random layers"),
    ("scheduling", "1 × 2", "nothing spawned, 1 worker of 2 cores"),
    ("scheduling", "1 × 64", "nothing spawned, 1 of 64"),
    ("scheduling", "16 × 128", "nothing spawned, 16 of 128"),
    ("memory", "array 1000000", "1,000,000 tasks accepted"),
    ("memory", "finish 1000000", "1,000,000 tasks carried out"),
    ("memory", "submissions 100000", "100,000 submissions accepted"),
    ("mix", "mix", "the hard mix"),
    ("workers", "workers 100", "100 workers"),
    ("workers", "workers 1000", "1,000 workers"),
    ("workers", "workers 10000", "10,000 workers"),
]


def quantity(value, scale, unit):
    """A number with three figures and its unit."""
    value *= scale
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


class Figures:
    """Look-ups in the results; `None` for what was not measured."""

    def __init__(self, parts):
        self.parts = parts

    def row(self, part, row):
        """All systems of a row."""
        return self.parts.get(part, {}).get(row, {})

    def get(self, part, row, system):
        """The figure: its `values`, and `failed` when there may be none."""
        return self.row(part, row).get(system)

    def best(self, part, row, system):
        """The smallest of the rounds."""
        figure = self.get(part, row, system)
        return min(figure["values"]) if figure and figure["values"] else None

    def value(self, part, row, system="dcluster"):
        """The only round of a figure that is a table of its own."""
        figure = self.get(part, row, system)
        return figure["values"][0] if figure and figure["values"] else None

    def per_task(self, part, row, system):
        """Seconds per task of the best round."""
        figure, seconds = self.get(part, row, system), self.best(part, row, system)
        return seconds / (figure.get("tasks") or figure["n"]) if seconds is not None else None

    def text(self, part, row, system, scale, unit):
        """The best round for people; the reason when there is none; empty when it was not measured."""
        figure = self.get(part, row, system)
        if figure is None:
            return ""
        return quantity(min(figure["values"]), scale, unit) if figure["values"] else figure["failed"]

    def turn(self, part, row):
        """The longest turn of a load."""
        figure = self.get(part, row, "dcluster")
        return figure.get("turn") if figure else None


def best_peer(data, part, row, systems, reader):
    """Returns (system, value) of the peer with the smallest value."""
    seen = [(value, system) for system in systems if (value := reader(part, row, system)) is not None]
    return min(seen)[::-1] if seen else (None, None)


def targets(data):
    """Rows (name, target, measured, best peer, ratio, met) of the design's table, as far as measured."""
    rows = []
    peers = ("hyperqueue", "dask", "parsl", "ray")
    names = {"hyperqueue": "HyperQueue", "dask": "Dask", "parsl": "Parsl", "ray": "Ray", "xargs": "xargs",
             "parallel": "GNU parallel"}

    def add(name, goal, value, text, limit, peer=None, peer_value=None, peer_text="", more=True, like=None):
        """`more`: what else must be met; `like`: what is compared with the peer's value when not `value`."""
        ratio = f"{(like or value) / peer_value:.3g}" if peer_value else ""
        said = f"{names[peer]} {peer_text}" if peer else peer_text
        rows.append((name, goal, text, said, ratio, value <= limit and more))

    def micro(seconds):
        return quantity(seconds, 1e6, "µs")

    def milli(seconds):
        return quantity(seconds, 1e3, "ms")

    ways = ("commands", "commands, quiet", "commands, map")
    ours = [(each, way) for way in ways if (each := data.per_task("tasks", way, "dcluster"))]
    floor = data.per_task("tasks", "commands", "xargs")
    peer, value = best_peer(data, "tasks", "commands", ("parallel", *peers), data.per_task)
    if ours and floor:
        each, way = min(ours)
        how = {"commands": "output kept", "commands, quiet": "output to /dev/null", "commands, map": "map"}[way]
        text = f"{each / floor:.2f} × xargs ({how})"
        add("command task on two full cores", "1.0 × xargs -P", each, text, floor, peer, value,
            f"{value / floor:.2f} × xargs" if value else "")
    for row in ("1 × 2", "1 × 64", "16 × 128"):
        each = data.per_task("scheduling", row, "dcluster")
        peer, value = best_peer(data, "tasks", "calls", peers, data.per_task)
        if each:
            add(f"scheduling alone, {row} cores", "300,000 tasks/s", each, f"{1 / each:,.0f} tasks/s", 1 / 300_000,
                peer, value, f"{1 / value:,.0f} calls/s (2 workers)" if value else "")
    each = data.per_task("tasks", "chain", "dcluster")
    peer, value = best_peer(data, "tasks", "chain", peers, data.per_task)
    if each:
        add("dependency hop", "0.5 ms", each, milli(each), 0.5e-3, peer, value, milli(value) if value else "")
    one = data.best("tasks", "single task", "dcluster")
    peer, value = best_peer(data, "tasks", "single task", peers, data.best)
    if one:
        add("`submit --wait true`", "5 ms", one, milli(one), 5e-3, peer, value, milli(value) if value else "")
    cpus = [figure["cpu"] / figure["n"] for way in ways if (figure := data.get("tasks", way, "dcluster"))
            and "cpu" in figure]
    if cpus:
        theirs = data.get("tasks", "calls", "dask")
        theirs = theirs["cpu"] / theirs["n"] if theirs and "cpu" in theirs else None
        add("scheduler's CPU per command task", "3 µs", min(cpus), micro(min(cpus)), 3e-6,
            "dask" if theirs else None, theirs, f"{micro(theirs)} per call" if theirs else "")
    held, theirs = data.value("memory", "array 1000000"), data.value("memory", "tasks 1000000", "hyperqueue")
    if held:
        add("array of 1,000,000: accepted in", "100 ms", held["accepted"], milli(held["accepted"]), 0.1,
            "hyperqueue" if theirs else None, theirs and theirs["accepted"],
            milli(theirs["accepted"]) if theirs else "")
        done = data.value("memory", "finish 1000000")
        peak = max(held["peak"], done["peak"]) if done else held["peak"]
        add("the same: peak memory, carried out", "60 MB", peak, quantity(peak, 1e-6, "MB"), 60e6,
            "hyperqueue" if theirs else None, theirs and theirs["peak"],
            quantity(theirs["peak"], 1e-6, "MB") + ", waiting" if theirs else "")
    ours, greedy = data.value("mix", "mix"), data.best("mix", "bound", "greedy")
    if ours and greedy:
        theirs = data.value("mix", "mix", "hyperqueue")
        ended = theirs and theirs["finished"] == theirs["tasks"]
        text = "not measured" if not theirs else f"{theirs['seconds'] / greedy:.2f} × greedy" if ended else (
            f"{theirs['finished']} of {theirs['tasks']} after {theirs['seconds']:.0f} s")
        add("hard mix", "1.1 × greedy", ours["seconds"], f"{ours['seconds'] / greedy:.2f} × greedy", 1.1 * greedy,
            "hyperqueue" if theirs else None, theirs["seconds"] if ended else None, text)
        add("the same: longest pause of the server", "50 ms", ours["turn"],
            f"{milli(ours['turn'])}, a client waited {milli(ours['answer'])}", 50e-3,
            "hyperqueue" if theirs else None, theirs and theirs["answer"],
            f"a client waited {milli(theirs['answer'])}" if theirs else "", like=ours["answer"])
    many = data.value("workers", "workers 10000")
    if many:
        cores = many["cpu"] / many["seconds"]
        rate = many["tasks"] / many["seconds"]
        add("10,000 simulated workers, each a task a second", "1 core, 1 GB", cores,
            f"{cores:.2f} cores, {many['peak'] / 1e9:.2f} GB, {rate:,.0f} tasks/s", 1.0,
            more=many["peak"] <= 1e9 and rate >= 9_000)
    for role in ("server", "worker"):
        size, share = (data.best("tasks", row, f"dcluster {role}") for row in ("idle memory", "idle share"))
        peer, value = best_peer(data, "tasks", "idle memory", peers, data.best)
        if size:
            add(f"idle {role}", "12 MB, 0.1 %", size, f"{size / 1e6:.1f} MB, {100 * share:.2f} %", 12e6,
                peer, value, f"{value / 1e6:,.0f} MB in all" if value else "", more=share <= 0.001)
    first = data.best("tasks", "first task", "dcluster")
    peer, value = best_peer(data, "tasks", "first task", peers, data.best)
    if first:
        add("first task after `up`", "0.3 s", first, milli(first), 0.3, peer, value, milli(value) if value else "")
    return rows
