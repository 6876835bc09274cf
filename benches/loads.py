"""What is run: graphs of tasks, and the hard mix with the bounds it is compared with.

Pure. A graph is a list; entry i holds the numbers of the tasks that task i comes after, all smaller
than i. Used by the drivers (peers/) and by the report.
"""

import heapq
import math
import random

MIX_WORKERS = 64
MIX_CORES = 64
MIX_TASKS = 720
MIX_SHAPES = 60
MIX_PRIORITIES = 32
MIX_SECONDS = 3


def chain(n):
    """n tasks, one after the other."""
    return [[i - 1] if i else [] for i in range(n)]


def fan(n):
    """One task, n after it, one after all of them."""
    return [[]] + [[0] for _ in range(n)] + [list(range(1, n + 1))]


def tree(leaves):
    """Pairs are joined until one is left: 2 * leaves - 1 tasks when `leaves` is a power of 2."""
    graph = [[] for _ in range(leaves)]
    level = list(range(leaves))
    while len(level) > 1:
        above = []
        for i in range(0, len(level), 2):
            graph.append(level[i : i + 2])
            above.append(len(graph) - 1)
        level = above
    return graph


def layers(count, width, seed=4):
    """`count` layers of `width` tasks; each task comes after 1 to 3 random ones of the layer before."""
    rng = random.Random(seed)
    graph = [[] for _ in range(width)]
    for layer in range(1, count):
        before = range((layer - 1) * width, layer * width)
        graph.extend(sorted(rng.sample(before, rng.randint(1, 3))) for _ in range(width))
    return graph


def graph(shape, *size):
    """The graph of a name, as the drivers get it by wire."""
    return {"chain": chain, "fan": fan, "tree": tree, "layers": layers}[shape](*size)


def sinks(graph):
    """Tasks that no other comes after."""
    inner = {j for after in graph for j in after}
    return [i for i in range(len(graph)) if i not in inner]


def mix(seed=4):
    """The hard mix: [(cores, priority)] of 720 tasks of 3 s, in order of submission."""
    rng = random.Random(seed)
    shapes = sorted(rng.sample(range(1, MIX_CORES + 1), MIX_SHAPES))
    return [(rng.choice(shapes), rng.randrange(MIX_PRIORITIES)) for _ in range(MIX_TASKS)]


def mix_bound(tasks):
    """Seconds that no scheduler can beat: the area, in whole rounds, as all tasks take the same time."""
    return MIX_SECONDS * math.ceil(sum(cores for cores, _ in tasks) / (MIX_WORKERS * MIX_CORES))


def mix_greedy(tasks):
    """Seconds of greedy list scheduling: by priority, then largest first, where it fits best."""
    waiting = sorted(tasks, key=lambda task: (-task[1], -task[0]))
    free = [MIX_CORES] * MIX_WORKERS
    running, now = [], 0.0
    while waiting or running:
        left = []
        for cores, priority in waiting:
            fits = [(room, worker) for worker, room in enumerate(free) if room >= cores]
            if fits:
                _, worker = min(fits)
                free[worker] -= cores
                heapq.heappush(running, (now + MIX_SECONDS, worker, cores))
            else:
                left.append((cores, priority))
        waiting = left
        now = running[0][0]
        while running and running[0][0] == now:
            _, worker, cores = heapq.heappop(running)
            free[worker] += cores
    return now


# A day in minutes, for the part `scaling`: (seconds after the begin, tasks, seconds of each). A burst that takes
# longer than a walltime, a tail that nothing runs beside, a second burst.
DAY = ((0, 40, 2), (0, 64, 30), (150, 1, 30), (210, 20, 2), (210, 24, 30))
DAY_JOBS = 8
DAY_CORES = 2
DAY_WALLTIME_SECONDS = 120
# Shares of the walltime that dask-jobqueue's documentation advises for --lifetime and its stagger: 55 and 4 of 60 min.
DAY_LIFETIME = 55 / 60
DAY_STAGGER = 4 / 60


def day_useful():
    """Core-seconds of all its tasks; each uses one core."""
    return sum(count * seconds for _, count, seconds in DAY)


def day_bound():
    """No schedule on the largest number of jobs that never waits for one is shorter: seconds."""
    end = 0.0
    for at in sorted({at for at, *_ in DAY}):
        parts = [(count, seconds) for when, count, seconds in DAY if when == at]
        area = sum(count * seconds for count, seconds in parts) / (DAY_JOBS * DAY_CORES)
        end = max(end, at) + max(area, *(seconds for _, seconds in parts))
    return end


def runs(text):
    """What tasks wrote, lines `start|end TASK RUN JOB TIME`: tasks that ended, their jobs, and runs that never did."""
    began, ended, jobs = set(), {}, set()
    for line in text.splitlines():
        what, task, run, job, at = line.split(" ")
        if what == "start":
            began.add((task, run))
        else:
            began.discard((task, run))
            ended[task] = ended.get(task, 0) + 1
            jobs.add(job)
    return {"tasks": len(ended), "twice": sum(n - 1 for n in ended.values()), "jobs": sorted(jobs), "cut": len(began)}
