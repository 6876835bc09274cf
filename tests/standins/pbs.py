"""PBS's face of the stand-in: commands, exit codes and texts as captured from OpenPBS 23.06.06 (2026 master and the
23.06.06 release); TORQUE's where `flavour` says so (from its manual 6.1: no TORQUE was captured). Formats: pbs_text.py.
"""

import getopt
import os
import re
import shutil
import signal
import sys

import pbs_text as text
from pbs_errors import BAD_STATE, DENIED, FINISHED, OVER, UNKNOWN, Refused, torque, version
from pbs_submit import qsub

DEFAULTS = {
    "system": "pbs",
    # "openpbs" (master: several ids in JSON show the first only), "pbs23" (its 23.06.06 release), "torque".
    "flavour": "openpbs",
    "version": "23.06.06",
    "host": "pbsvm",
    # qstat -x works.
    "history": False,
    # Each: enabled started acl (false: not for you) max_queued resources_max {walltime ncpus mem}.
    "queues": {"workq": {}},
    "default_queue": "workq",
    "max_array_size": 10000,
    # What a queuejob hook says to every job.
    "hook": None,
    # Printed before the header of a plain qstat.
    "server_comment": None,
    # How long a job stays E when its output cannot be delivered (30 s in the real one).
    "stageout_seconds": 1.0,
    # qstat -E is known (PBS Pro 13 and later).
    "grouping": True,
    # Letters that -k takes: older ones have no direct write.
    "keep": "oedn",
}
SPARE_LEADER = True



def down(request):
    """No server."""
    host, command = "pbsvm", request["command"]
    if command == "qstat":
        out = ""
        if "json" in " ".join(request["args"]):
            out = text.json_document({"host": host, "version": "23.06.06", "flavour": "openpbs"}, None, {})
        return [255, out, f"Connection refused\nqstat: cannot connect to server {host} (errno=15010)\n"]
    if command == "pbsnodes":
        return [1, "", f"Connection refused\npbsnodes: cannot connect to server {host}, error=15010\n"]
    if command == "qdel":
        return [162, "", f"Connection refused\nCouldn't connect to cluster: {host}\n"]
    return [162, "", f"Connection refused\n{command}: cannot connect to server {host} (errno=15010)\n"]


def command(core, request):
    do = {"qsub": qsub, "qstat": qstat, "qdel": qdel, "qselect": qselect, "qsig": qsig, "pbsnodes": pbsnodes}
    do |= {"qhold": qhold, "qrls": qrls, "qrerun": qrerun}
    try:
        return do[request["command"]](core, request)
    except Refused as refused:
        return [refused.code, "", f"{request['command']}: {refused.words}\n"]
    except getopt.GetoptError as error:
        words = f"{request['command']}: invalid option -- '{error.opt}'\n"
        return [2, "", words + (text.QSUB_USAGE if request["command"] == "qsub" else text.QSTAT_USAGE)]


# Running


def launch(core, job):
    attrs, number, host = job["attrs"], job["number"], core.config["host"]
    full = f"{job['key']}.{host}"
    run = os.path.join(core.folder, "run", job["key"])
    with open(run + ".SC", "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(job["script"])
    os.chmod(run + ".SC", 0o700)
    shell = attrs["options"].get("S", "/bin/bash").split(",")[0].split("@")[0]
    env = {
        **attrs["variables"],
        "ENVIRONMENT": "BATCH",
        "HOME": attrs["home"],
        "LOGNAME": job["owner"],
        "USER": job["owner"],
        "SHELL": shell,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "NCPUS": str(job["cpus"]),
        "OMP_NUM_THREADS": str(job["cpus"]),
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBDIR": attrs["home"],
        "PBS_JOBID": full,
        "PBS_JOBNAME": job["name"],
        "PBS_NODENUM": "0",
        "PBS_QUEUE": job["queue"],
        "PBS_TASKNUM": "1",
        "PBS_JOBCOOKIE": "1A98241F602003BE3772382674D993A9",
    }
    if job["index"] is not None:
        if torque(core):
            env["PBS_ARRAYID"] = str(job["index"])
        else:
            env |= {"PBS_ARRAY_INDEX": str(job["index"]), "PBS_ARRAY_ID": f"{number}[].{host}"}
    spool = run + ".OU"
    direct = "d" in attrs["options"].get("k", "")
    out = output_path(core, job, "o") if direct else None
    if out and not os.access(os.path.dirname(out), os.W_OK):
        out = None
    attrs["spooled"] = out is None
    joined = attrs["options"].get("j", "n") != "n"
    return {
        "argv": [shell],
        "argv0": "-" + os.path.basename(shell),
        "stdin": run + ".SC\n",
        "env": env,
        "cwd": attrs["home"],
        "stdout": out or spool,
        "stderr": None if joined else run + ".ER",
        "umask": int(attrs["options"].get("W", "umask=077").partition("umask=")[2] or "077", 8),
    }


def output_path(core, job, which):
    attrs, number = job["attrs"], job["number"]
    path = attrs["options"].get(which)
    default = f"{job['name']}.{which}{number}" + ("" if job["index"] is None else f".{job['index']}")
    if path is None:
        return os.path.join(attrs["variables"]["PBS_O_WORKDIR"], default)
    path = path.rpartition(":")[2] if ":" in path else path
    path = os.path.join(attrs["variables"]["PBS_O_WORKDIR"], path)
    path = path.replace("^array_index^", str(job["index"]))
    if path.endswith("/") or os.path.isdir(path):
        return os.path.join(path, f"{job['key']}.{core.config['host']}.OU")
    if torque(core) and job["index"] is not None:
        path += f"-{job['index']}"
    return path


def ladder(core, job, why):
    if why == "force":
        return [[0, signal.SIGKILL]]
    return [[0, signal.SIGTERM], [core.config["grace"], signal.SIGKILL]]


def ended(core, job):
    run = os.path.join(core.folder, "run", job["key"])
    if job["why"] == "walltime":
        used = int(job["ended"] - job["started"])
        with open(run + ".OU", "a", encoding="utf-8") as file:
            file.write(f"=>> PBS: job killed: walltime {used} exceeded limit {job['walltime']}\n")
    if not job["attrs"]["spooled"]:
        return 0
    target = output_path(core, job, "o")
    try:
        shutil.copyfile(run + ".OU", target)
        os.chmod(target, 0o600)
    except OSError:
        job["attrs"]["stageout"] = 0
        return core.config["stageout_seconds"]
    job["attrs"]["stageout"] = 1
    return 0


# Which jobs an id means


def find(core, word):
    """The number and which elements an id of the user means: None (a job), "all" (an array), a list of indexes."""
    host = core.config["host"]
    match = re.fullmatch(r"(\d+)(?:\[(\d*)(?:-(\d+))?\])?(?:\.(.+))?", word)
    if not match or match[4] not in (None, host):
        if re.fullmatch(r"[A-Za-z][\w.-]*", word) and "." in word:
            raise Refused(170, f"Unknown queue destination {word}")
        raise Refused(1, f"illegally formed job identifier: {word}")
    if match[2] is None:
        return int(match[1]), None
    if match[2] == "":
        return int(match[1]), "all"
    return int(match[1]), list(range(int(match[2]), int(match[3] or match[2]) + 1))


def records(core, word):
    """Records of an id, and whether it means an array as a whole."""
    number, which = find(core, word)
    jobs = core.of(number)
    full = word if "." in word else f"{word}.{core.config['host']}"
    is_array = bool(jobs) and jobs[0]["index"] is not None
    if not jobs or is_array != (which is not None):
        raise Refused(UNKNOWN, f"Unknown Job Id {full}")
    over = all(job["state"] == "done" for job in jobs)
    if over and not kept(core, jobs):
        raise Refused(UNKNOWN, f"Unknown Job Id {full}")
    if isinstance(which, list):
        chosen = [job for job in jobs if job["index"] in which]
        if not chosen:
            raise Refused(UNKNOWN, f"Unknown Job Id {full}")
        return chosen, False, over
    return jobs, is_array, over


def kept(core, jobs):
    """Whether finished jobs are still known: by history, or for a while (TORQUE)."""
    if torque(core):
        return core.now() - max(job["ended"] for job in jobs) < core.config.get("keep_completed", 300)
    return core.config["history"]


# qdel and others


def each(core, request, operands, do):
    """Does something with every id: goes on after an error; the last error is the exit code."""
    code, errors = 0, ""
    for word in operands:
        try:
            do(word)
        except Refused as refused:
            code = refused.code
            errors += f"{request['command']}: {refused.words}\n"
    return [code, "", errors]


def qdel(core, request):
    options, operands = getopt.gnu_getopt(request["args"], "W:xm:p")
    force = ("-W", "force") in options

    def one(word):
        full = word if "." in word else f"{word}.{core.config['host']}"
        jobs, whole, over = records(core, word)
        if over and torque(core):
            raise Refused(BAD_STATE, f"Request invalid for state of job MSG=invalid state for job - COMPLETE {full}")
        if over:
            if ("-x", "") in options:
                for job in jobs:
                    core.forget(job)
                return
            raise Refused(FINISHED, f"Job has finished {full}")
        own(jobs, request, full)
        alive = [job for job in jobs if job["state"] in ("pending", "held", "running")]
        ranged = "-" in word or "," in word
        if not alive and ranged:
            return
        if not alive and jobs[0]["index"] is not None and not whole and jobs[0]["state"] == "done":
            raise Refused(OVER, f"Request invalid for finished array subjob {full}")
        if not alive:
            raise Refused(BAD_STATE, f"Request invalid for state of job {full}")
        for job in alive:
            core.end(job, "force" if force else "cancel")

    # Nothing after an element of an array: see `src/backends/pbs/cancel.rs`.
    arrays = [place for place, word in enumerate(operands) if "[" in word]
    if arrays and not torque(core):
        operands = operands[: arrays[0] + 1]
    return each(core, request, operands, one)


def own(jobs, request, full):
    if request["uid"] not in (0, jobs[0]["uid"]):
        raise Refused(DENIED, f"Unauthorized Request  {full}")


def qsig(core, request):
    options, operands = getopt.gnu_getopt(request["args"], "s:")
    name = dict(options).get("-s", "SIGTERM").removeprefix("SIG")

    def one(word):
        full = word if "." in word else f"{word}.{core.config['host']}"
        jobs, _, over = records(core, word)
        if over:
            raise Refused(FINISHED, f"Job has finished {full}")
        own(jobs, request, full)
        running = [job for job in jobs if job["state"] == "running"]
        if not running:
            raise Refused(BAD_STATE, f"Request invalid for state of job {full}")
        for job in running:
            core.signal(job, int(name) if name.isdigit() else getattr(signal, "SIG" + name))

    return each(core, request, operands, one)


def qhold(core, request):
    def one(word):
        for job in records(core, word)[0]:
            if job["state"] == "pending":
                job["state"] = "held"

    return each(core, request, request["args"], one)


def qrls(core, request):
    def one(word):
        for job in records(core, word)[0]:
            if job["state"] == "held":
                job["state"] = "pending"

    return each(core, request, request["args"], one)


def qrerun(core, request):
    def one(word):
        for job in records(core, word)[0]:
            core.rerun(job)

    return each(core, request, request["args"], one)


def qselect(core, request):
    options, _ = getopt.gnu_getopt(request["args"], "a:A:c:h:HJl:N:p:P:q:r:s:t:Tu:x")
    chosen = dict(options)
    if "-x" in chosen and not core.config["history"]:
        # Refused as a whole, and 0 all the same.
        return [0, "", "qselect: PBS is not configured to maintain job history\n"]
    lines = []
    for number in dict.fromkeys(job["number"] for job in core.jobs.values()):
        jobs = core.of(number)
        over = all(job["state"] == "done" for job in jobs)
        if over and not ("-x" in chosen if not torque(core) else kept(core, jobs)):
            continue
        if "-u" in chosen and jobs[0]["owner"] != chosen["-u"]:
            continue
        if "-N" in chosen and jobs[0]["name"] != chosen["-N"]:
            continue
        if hidden(request, str(number)):
            continue
        lines.append(f"{number}{'' if jobs[0]['index'] is None else '[]'}.{core.config['host']}\n")
    return [0, "".join(lines), ""]


def hidden(request, key):
    """A fault: the listing leaves these out ("lie": {"omit": ["12", "13[2]"]}, or "all")."""
    omitted = (request.get("lie") or {}).get("omit", [])
    return omitted == "all" or key in omitted


# qstat and pbsnodes


def qstat(core, request):
    if request["args"] == ["--version"]:
        return version(core)
    config = core.config
    letters = "fxtwJpF:D:1au:nsHQBTirqGM" + ("E" if config["grouping"] and not torque(core) else "")
    options, operands = getopt.gnu_getopt(request["args"], letters)
    chosen = dict(options)
    if torque(core) and "-x" in chosen:
        return [0, "<Data></Data>\n", ""]
    if "-F" in chosen and torque(core):
        raise getopt.GetoptError("", "F")
    if "-1" in chosen and "-f" in chosen and not torque(core):
        return [2, "", "qstat: conflicting options.\n" + text.QSTAT_USAGE]
    if "-f" in chosen and "-u" in chosen and config["flavour"] == "openpbs":
        return [2, "", "qstat: conflicting options.\n" + text.QSTAT_USAGE]
    if "-Q" in chosen:
        return text.queues(core, chosen, operands)
    if "-B" in chosen:
        return [0, text.render(core, chosen, "Server", text.server(core)), ""]
    shown, code, errors = {}, 0, []
    if not operands:
        if "-x" in chosen and not config["history"]:
            return [0, "", "qstat: PBS is not configured to maintain job history \n"]
        for number in dict.fromkeys(job["number"] for job in core.jobs.values()):
            jobs = core.of(number)
            over = all(job["state"] == "done" for job in jobs)
            if over and not ("-x" in chosen or torque(core) and kept(core, jobs)):
                continue
            if "-u" in chosen and jobs[0]["owner"] != chosen["-u"]:
                continue
            show(core, request, shown, jobs, jobs[0]["index"] is not None, "-t" in chosen)
    for word in operands:
        full = word if "." in word else f"{word}.{config['host']}"
        if "-x" in chosen and not config["history"]:
            # The server refuses the whole request, rc 0 all the same.
            errors.append(f"PBS is not configured to maintain job history {full}")
            continue
        try:
            jobs, whole, over = records(core, word)
            if over and "-x" not in chosen and not torque(core):
                hint = "use -x or -H to obtain historical job information"
                raise Refused(FINISHED, f"{full} Job has finished, {hint}")
            show(core, request, shown, jobs, whole, "-t" in chosen)
        except Refused as refused:
            code = refused.code
            errors.append(refused.words)
    if "-E" in chosen and code in (UNKNOWN, FINISHED):
        # One request: no error as long as one of them is known, else that of the last.
        code, errors = (0, []) if shown else (code, errors[-1:])
    if config["flavour"] == "openpbs" and chosen.get("-F") == "json" and len(operands) > 1 and "-E" not in chosen:
        shown = dict(list(shown.items())[:1])
    err = "".join(f"qstat: {line}\n" for line in errors)
    return [code, text.render(core, chosen, "Jobs", shown), err]


def show(core, request, shown, jobs, whole, elements):
    host = core.config["host"]
    if whole:
        number = jobs[0]["number"]
        if hidden(request, str(number)):
            return
        if not torque(core) or not elements:
            shown[f"{number}[].{host}"] = text.parent(core, jobs)
    if not whole or elements:
        for job in jobs:
            if not hidden(request, job["key"]) and not hidden(request, str(job["number"])):
                shown[f"{job['key']}.{host}"] = text.job(core, job)


def pbsnodes(core, request):
    options, operands = getopt.gnu_getopt(request["args"], "avF:ljSLHx")
    chosen = dict(options)
    known = {node["name"]: node for node in core.config["nodes"]}
    for word in operands:
        if word not in known:
            return [1, "", f"Node: {word},  Error: Unknown node \n"]
    shown = {name: text.node(core, node) for name, node in known.items() if not operands or name in operands}
    return [0, text.render(core, {**chosen, "-f": ""}, "nodes", shown), ""]


if __name__ == "__main__":
    sys.exit("run `batch` under the name of a command")
