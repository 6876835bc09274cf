"""What /proc says: of this machine, of processes, and which processes a benchmark has started.

Every process that a session starts inherits MARK=<token> in its environment; by that it is found
again, even when it has left its session or its parent (Ray's and Parsl's do).
"""

import os
import platform
import signal
import time

MARK = "DCLUSTER_BENCH"
TICK = os.sysconf("SC_CLK_TCK")


def marked(token):
    """Returns the pids of all processes with this token, ourselves never."""
    word = f"{MARK}={token}".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if word in file.read().split(b"\0") and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def end_all(token, patience=3.0):
    """Ends all processes with this token: SIGTERM, and SIGKILL when that was not heard."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in marked(token):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + patience
        while marked(token) and time.monotonic() < deadline:
            time.sleep(0.05)


def cpu_seconds(pid):
    """User and system time of a process so far, its ended children not included."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def running_seconds(pid):
    """The same of the threads that it has now, exactly: for what uses less than a clock tick."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def memory(pid):
    """Returns (resident, peak) bytes of a process."""
    now = peak = 0
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                now = int(line.split()[1]) * 1024
            elif line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
    return now, peak


def command_line(pid):
    """The words of a process."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().decode(errors="replace").split("\0")


def describe():
    """One line about this machine."""
    model, total = "unknown processor", 0
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = " ".join(line.split(":", 1)[1].split())
                break
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) / 1024**2
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model}, {total:.0f} GiB of memory, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def load():
    """Load average of the last minute."""
    return os.getloadavg()[0]
