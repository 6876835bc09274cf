"""The real Slurm of tests/clusters/slurm, for the part `scaling`: started when it does not run, and then stopped again."""

import contextlib
import os
import subprocess

CLUSTER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "clusters", "slurm")
LIMIT_SECONDS = 600
FIELDS = ("JobID", "JobName", "Submit", "Start", "End", "ElapsedRaw", "AllocCPUS", "State")


@contextlib.contextmanager
def slurm():
    """Sets SLURM_CONF while there is a Slurm with accounting; raises OSError with the reason when there cannot be one."""
    folder = os.environ.get("SLURM_BED") or "/tmp/slurm"
    before = dict(os.environ)
    os.environ["SLURM_CONF"] = os.path.join(folder, "etc", "slurm.conf")
    ours = not answers("scontrol", "ping")
    try:
        if ours:
            if os.geteuid() != 0:
                raise OSError("only root can start a Slurm")
            os.environ["SLURM_BED"] = folder
            run("up", "--db")
        elif not answers("sacct", "-n", "-X", "-S", "now"):
            raise OSError("the Slurm that runs has no accounting: start it with --db")
        yield
    finally:
        try:
            if ours and os.geteuid() == 0:
                run("down")
        finally:
            os.environ.clear()
            os.environ.update(before)


def run(script, *words):
    done = subprocess.run([os.path.join(CLUSTER, script), *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=LIMIT_SECONDS)
    if done.returncode != 0:
        raise OSError(f"no Slurm: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def answers(*words):
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def jobs(prefix, since):
    """What sacct knows of jobs that were submitted since then and whose name begins so, as dicts; times in seconds."""
    words = ["sacct", "-X", "-n", "-P", "-S", "now-2hours", "-o", ",".join(FIELDS)]
    env = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
    text = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    found = [dict(zip(FIELDS, line.split("|"))) for line in text.splitlines()]
    return [job for job in found if job["JobName"].startswith(prefix) and int(job["Submit"]) >= int(since)]


def unfinished(prefix):
    """How many jobs with such a name squeue shows."""
    words = ["squeue", "-h", "-r", "-t", "PD,CF,R,CG", "-o", "%j"]
    text = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    return sum(name.startswith(prefix) for name in text.splitlines())
