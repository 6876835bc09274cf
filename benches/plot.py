"""Draws the plots of docs/benchmarks.md: results on standard input, SVG files into a folder.

    plot.py FOLDER < results.json

Run by benches/run with an environment that has matplotlib.
"""

import json
import os
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from figures import Figures
from report import PEERS, SYSTEM_NAMES

OURS, THEIRS = "#c2410c", "#94a3b8"
COLOURS = {"dcluster": OURS, "hyperqueue": "#1d4ed8", "dask": "#64748b", "parsl": "#94a3b8", "ray": "#cbd5e1"}
plt.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "dcluster", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white",
})


def number(value, _=None):
    """1500 as 1,500; 0.25 as 0.25."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def three(value):
    """Three figures at most."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bars(path, rows, title):
    """Horizontal bars on a logarithmic axis: rows of (label, value, is it ours)."""
    rows = [row for row in rows if row[1]]
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(6.4, 0.75 + 0.27 * len(rows)))
    labels, values, ours = zip(*rows[::-1])
    drawn = axes.barh(labels, values, color=[OURS if own else THEIRS for own in ours], height=0.7)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2.5, max(values) * 3)
    axes.bar_label(drawn, labels=[three(value) for value in values], padding=3)
    axes.xaxis.set_major_formatter(FuncFormatter(number))
    axes.set_title(title, loc="left", fontsize=10)
    axes.tick_params(axis="y", length=0)
    save(figure, path)


def save(figure, path):
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def rates(data, path):
    """Tasks per second of every system, and without processes."""
    def rate(part, row, system):
        each = data.per_task(part, row, system)
        return 1 / each if each else None

    rows = [(SYSTEM_NAMES[name], rate("tasks", "commands", name), False) for name in ("xargs", "parallel")]
    rows += [
        (name, rate("tasks", row, "dcluster"), True)
        for row, name in (("commands", "dcluster submit"), ("commands, map", "dcluster map"))
    ]
    rows += [(SYSTEM_NAMES[name], rate("tasks", "commands", name), False) for name in PEERS]
    rows += [(f"{SYSTEM_NAMES[name]}, empty calls", rate("tasks", "calls", name), False) for name in PEERS[1:]]
    rows += [
        (f"dcluster, simulated {row}", rate("scheduling", row, "dcluster"), True)
        for row in ("1 × 2", "1 × 64", "16 × 128")
    ]
    bars(path, rows, "Tasks per second (more is better)")


def latency(data, path):
    """A hop and a single task, in milliseconds."""
    rows = []
    for name in ("dcluster", *PEERS):
        hop = data.per_task("tasks", "chain", name)
        rows.append((f"{SYSTEM_NAMES[name]}, hop", hop and 1e3 * hop, name == "dcluster"))
    connected = data.best("tasks", "single task, connected", "dcluster")
    rows.append(("dcluster, one task, connected", connected and 1e3 * connected, True))
    for name in ("dcluster", *PEERS):
        one = data.best("tasks", "single task", name)
        way = ", command line" if name == "dcluster" else ""
        rows.append((f"{SYSTEM_NAMES[name]}, one task{way}", one and 1e3 * one, name == "dcluster"))
    bars(path, rows, "Milliseconds per dependency hop and per single task (less is better)")


def graphs(data, path):
    """Time per task of the graph shapes, in groups."""
    shapes = {"chain": "chain", "fan": "fan-out, fan-in", "tree": "tree", "layers": "random layers"}
    systems = [name for name in ("dcluster", *PEERS) if any(data.per_task("tasks", s, name) for s in shapes)]
    if not systems:
        return
    figure, axes = plt.subplots(figsize=(6.4, 2.9))
    width = 0.8 / len(systems)
    for place, system in enumerate(systems):
        values = [1e3 * (data.per_task("tasks", shape, system) or 0) for shape in shapes]
        at = [group + (place - (len(systems) - 1) / 2) * width for group in range(len(shapes))]
        axes.bar(at, values, width * 0.92, color=COLOURS[system], label=SYSTEM_NAMES[system])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(number))
    axes.set_xticks(range(len(shapes)), shapes.values())
    axes.tick_params(axis="x", length=0)
    axes.set_title("Milliseconds per task of a graph (less is better)", loc="left", fontsize=10)
    axes.legend(frameon=False, loc="upper right", ncols=len(systems), fontsize=8, columnspacing=1, handlelength=1)
    axes.set_ylim(top=axes.get_ylim()[1] * 3)
    save(figure, path)


def memory(data, path):
    """Memory of the server against number of tasks that it holds."""
    lines = {
        "dcluster, one array": ("array", "dcluster", OURS, "-"),
        "dcluster, one submission a task": ("submissions", "dcluster", OURS, "--"),
        "HyperQueue": ("tasks", "hyperqueue", COLOURS["hyperqueue"], "-"),
        "Dask": ("tasks", "dask", COLOURS["dask"], "-"),
    }
    figure, axes = plt.subplots(figsize=(6.4, 2.9))
    drawn = False
    for label, (row, system, colour, style) in lines.items():
        points = [(n, value["after"] / 1e6) for n in (10_000, 100_000, 1_000_000)
                  if (value := data.value("memory", f"{row} {n}", system))]
        if points:
            axes.plot(*zip(*points), color=colour, linestyle=style, marker="o", markersize=4, label=label)
            drawn = True
    if not drawn:
        plt.close(figure)
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(number))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("tasks that wait")
    axes.set_title("Resident memory of the server, MB (less is better)", loc="left", fontsize=10)
    axes.grid(axis="y", color="#e2e8f0")
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)


def main():
    folder = sys.argv[1]
    data = Figures(json.load(sys.stdin)["parts"])
    for draw in (rates, latency, graphs, memory):
        draw(data, os.path.join(folder, f"{draw.__name__}.svg"))


if __name__ == "__main__":
    main()
