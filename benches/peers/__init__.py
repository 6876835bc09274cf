"""One module per system that is measured, all with the same class `Peer(folder)`.

    start(cores)       brings it up with so many cores; what is slow about that is measured
    one(n)             seconds of each of n single tasks, submitted and waited for one by one
    flat(n)            {"seconds", "cpu"}: n independent tasks that run the program `true`
    calls(n)           the same for n no-op calls in warm Python workers
    graph(shape, size) {"seconds", "tasks"}: a graph of loads.py of the smallest tasks it has
    hold(n)            {"accepted": seconds, "before": bytes, "after": bytes}: n tasks that cannot start
    mix()              {"seconds", "answer"}: the hard mix, and the longest time without an answer
    stop()             takes it down
    version()          what it calls itself

A method that a system has no equivalent for raises `Unsupported` with the reason, which is printed.
Modules run in the system's own Python environment (venvs.py) below driver.py.
"""

import os

TRUE = "/bin/true" if os.path.exists("/bin/true") else "/usr/bin/true"


class Unsupported(Exception):
    """The system has nothing like it."""


class Base:
    """What a peer cannot do unless its module says otherwise."""

    def __init__(self, folder):
        self.folder = folder
        self.cores = 2

    def start(self, cores):
        self.cores = cores

    def stop(self):
        pass

    def one(self, n):
        raise Unsupported("no single tasks")

    def flat(self, n):
        raise Unsupported("no commands")

    def calls(self, n):
        raise Unsupported("runs commands only")

    def graph(self, shape, size):
        raise Unsupported("no dependencies")

    def hold(self, n):
        raise Unsupported("no queue that can be looked at")

    def mix(self):
        raise Unsupported("no resources and priorities")


def timed(function, *args):
    """Returns the seconds of a call."""
    import time

    begin = time.perf_counter()
    function(*args)
    return time.perf_counter() - begin
