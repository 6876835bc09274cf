"""LSF's face of the stand-in: OpenLava 2.2 as captured (no -o, no -json), and IBM LSF 10.1 by its manual and published
outputs (`flavour`). Formats: lsf_text.py.

`lie` of a fault: "empty" (bjobs answers 0 and nothing), "forget" (it does not know the ids it is asked for).
"""

import json
import os
import re
import signal
import sys
import time

import core as batch
import lsf_text as text
from lsf_bsub import Refused, bsub, ibm

DEFAULTS = {
    "system": "lsf",
    # "openlava", "ibm".
    "flavour": "openlava",
    # IBM's 9.1 has -o and no -json.
    "json": True,
    "host": "vm",
    "first_number": 101,
    # Each: runlimit (minutes) proclimit memlimit (KB) denied (not for you) status started (false: jobs wait).
    "queues": {
        "short": {"runlimit": 5, "proclimit": 4, "memlimit": 500000},
        "normal": {},
        "nobody": {"denied": True},
        "night": {"started": False, "status": "Open:Inact_Win"},
    },
    "default_queue": "normal",
    "max_array_size": 1000,
    # Seconds after which bjobs forgets an ended job; bhist does not.
    "clean_period": 3600,
    # LSF_UNIT_FOR_LIMITS, and whether reservations are for each slot.
    "unit": None,
    "per_task": False,
    # What the site's esub prints and does: out err refuse.
    "esub": {},
    # Nodes of which nothing is heard: jobs there are UNKWN, and ZOMBI once they are killed, until the node is back.
    "silent": [],
    # Seconds for which a job that brequeue has killed is EXIT, and then PEND again at least.
    "requeue_pause": [4.0, 12.0],
    # Seconds from the run limit's USR2 to the ladder (10 minutes in the real one).
    "runlimit_grace": 1.0,
    # "No unfinished job found" and the like fail with this instead of 254 and 255.
    "none_code": None,
}
SPARE_LEADER = False


def down(request):
    """No mbatchd. LIM still answers."""
    command, tries = request["command"], request["env"].get("LSB_NTRIES")
    if command == "lsid":
        return [0, lsid_text(settings(request)), ""]
    n = 0
    while tries is None or n + 1 < int(tries):
        print("batch system daemon not responding ... still trying", file=sys.stderr, flush=True)
        time.sleep(10)
        n += 1
    words = "Connection refused by server"
    return [255, "", f"{words}. Job not submitted.\n"] if command == "bsub" else [254, "", f"{words}\n"]


def settings(request):
    try:
        with open(os.path.join(request["env"]["DCLUSTER_STANDIN"], "settings.json"), encoding="utf-8") as file:
            return {**DEFAULTS, **json.load(file)}
    except FileNotFoundError:
        return DEFAULTS


def command(core, request):
    do = {
        "bsub": bsub, "bjobs": bjobs, "bkill": bkill, "bhist": bhist, "bqueues": bqueues, "bhosts": bhosts,
        "bparams": bparams, "lsid": lsid, "lshosts": lshosts, "bresume": bresume, "bstop": bstop,
        "brequeue": brequeue,
    }  # fmt: skip
    for job in core.jobs.values():
        if job["attrs"].get("zombie") and not silent(core, job):
            del job["attrs"]["zombie"]
            core.end(job, "bkill")
        if job["attrs"].get("requeue") and job["state"] == "done" and core.now() > job["ended"] + core.config["requeue_pause"][0]:
            put_back(core, job)
    try:
        return do[request["command"]](core, request)
    except Refused as refused:
        return [255, refused.out, refused.words]


# How a job runs.


def paths(job):
    folder = os.path.join(job["env"].get("HOME", "/tmp"), ".lsbatch")
    name = f"{int(job['submitted'])}.{job['number']}" + (f".{job['index']}" if job["index"] is not None else "")
    return folder, os.path.join(folder, name)


def launch(core, job):
    folder, file = paths(job)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    lines = ["#! /bin/sh", "$LSB_TRAPSIGS", "# LSBATCH: User input"]
    if job["attrs"]["stdin"]:
        first, _, rest = job["script"].partition("\n")
        lines += ["( cat <<_USER_\\SCRIPT_", first, rest, "_USER_SCRIPT_", ") > $LSB_CHKFILENAME.shell"]
        lines += ["chmod u+x $LSB_CHKFILENAME.shell", "$LSB_JOBFILENAME.shell", "saveExit=$?"]
        lines += ["/bin/rm -f $LSB_JOBFILENAME.shell", "(exit $saveExit)"]
    else:
        lines.append(job["script"])
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700), "w", encoding="utf-8") as wrapper:
        wrapper.write("\n".join(lines) + "\n")
    env = {
        **job["env"],
        "LSB_JOBID": str(job["number"]),
        "LSB_JOBINDEX": str(job["index"] or 0),
        "LSB_JOBNAME": job["attrs"]["spec"],
        "LSB_QUEUE": job["queue"],
        "LSB_HOSTS": " ".join([job["node"]] * job["cpus"]),
        "LSB_MCPU_HOSTS": f"{job['node']} {job['cpus']} ",
        "LSB_SUB_HOST": job["attrs"]["from"],
        "LS_SUBCWD": job["cwd"],
        "LSB_JOBFILENAME": file,
        "LSB_CHKFILENAME": file,
        "LSB_TRAPSIGS": "trap # 15 10 12 2 1",
    }
    return {"argv": ["/bin/sh", file], "env": env, "cwd": job["cwd"], "stdout": file + ".out"}


def ladder(core, job, why):
    grace = core.config["grace"]
    if ibm(core) and job["cpus"] > 1 and why != "walltime":
        return [[0, signal.SIGKILL]]
    start = core.config["runlimit_grace"] if why == "walltime" else 0
    steps = [[start, signal.SIGCONT], [start, signal.SIGINT], [start + grace, signal.SIGTERM], [start + 2 * grace, signal.SIGKILL]]
    return [[0, signal.SIGUSR2], *steps] if why == "walltime" else steps


def ended(core, job):
    """The report goes to -o, or by mail."""
    _, file = paths(job)
    try:
        with open(file + ".out", encoding="utf-8", errors="replace") as out:
            output = out.read()
    except FileNotFoundError:
        output = ""
    words = "Successfully completed" if job["code"] == 0 else f"Exited with exit code {job['code']}"
    whole = text.report(job, words, output)
    path = (job["attrs"]["output"] or "").replace("%J", str(job["number"])).replace("%I", str(job["index"] or 0))
    try:
        if not path:
            raise FileNotFoundError
        with open(os.path.join(job["cwd"], path), "a", encoding="utf-8") as out:
            out.write(whole)
    except OSError:
        if job["attrs"]["mail"]:
            os.makedirs(os.path.join(core.folder, "mail"), exist_ok=True)
            with open(os.path.join(core.folder, "mail", job["key"]), "w", encoding="utf-8") as mail:
                mail.write(whole)
    for name in (file, file + ".out", file + ".shell"):
        if os.path.exists(name):
            os.unlink(name)
    return 0


# What is known of jobs.


def silent(core, job):
    return job["state"] in ("running", "ending") and job["node"] in core.config["silent"]


def stat(core, job):
    if silent(core, job):
        return "ZOMBI" if job["attrs"].get("zombie") else "UNKWN"
    if job["state"] == "running":
        return "USUSP" if job["attrs"].get("stopped") else "RUN"
    states = {"pending": "PEND", "held": "PSUSP", "ending": "RUN"}
    return states.get(job["state"]) or ("DONE" if done(core, job) else "EXIT")


def done(core, job):
    """OpenLava also calls it done when the job's own shell was killed."""
    by_itself = job["signal"] and not job["why"] and not ibm(core)
    return bool(job["code"] == 0 or by_itself) and not (job["why"] and ibm(core))


def exit_reason(core, job):
    if not ibm(core) or job["state"] != "done":
        return ""
    words = {
        "walltime": "TERM_RUNLIMIT: job killed after reaching LSF run time limit",
        "bkill": "TERM_OWNER: job killed by owner",
        "removed": "TERM_REMOVE_HUNG_JOB: job removed from the LSF system",
    }
    return words.get(job["why"], "")


def reasons(core, job):
    if job["state"] == "held":
        return ["The job was suspended by the user while pending: 1 host"]
    match job["wait"]:
        case ["queue", *_]:
            return ["The queue is inactivated by its time windows: 1 host"]
        case [_, "memory", *_]:
            return ["Job requirements for reserving resource (mem) not satisfied: 1 host"]
        case [_, "cpus", *_]:
            return ["Job slot limit reached: 1 host"]
    return ["New job is waiting for scheduling: 1 host"]


def remembered(core):
    oldest = core.now() - core.config["clean_period"]
    return [job for job in core.jobs.values() if job["state"] != "done" or job["ended"] > oldest]


def picked(core, words):
    """Jobs by ids, and words about those that are not there."""
    jobs, errors = [], ""
    for word in words:
        match = re.fullmatch(r"(\d+)(?:\[([\d,-]+)\])?", word)
        if not match:
            errors += f"{word}: Illegal job ID.\n"
            continue
        number, wanted = int(match.group(1)), None
        if match.group(2):
            wanted = set()
            for part in match.group(2).split(","):
                first, _, last = part.partition("-")
                wanted |= set(range(int(first), int(last or first) + 1))
        known = {job["key"] for job in remembered(core)}
        found = [j for j in core.of(number) if j["key"] in known and (wanted is None or j["index"] in wanted)]
        jobs += found
        errors += "" if found else f"Job <{word}> is not found\n"
    return jobs, errors


def matches(pattern, job):
    name = job["name"]
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern.split("[")[0]


def bjobs(core, request):
    opts, given, words = "wladpsrAh", {}, list(request["args"])
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word in ("-json", "-noheader", "-UF") and ibm(core) and (word != "-json" or core.config["json"]):
            given[word] = True
        elif word[1] in "JumqPNo" and (word[1] != "o" or ibm(core)):
            given[word[:2]] = word[2:] or words.pop(0)
        elif word[1] in opts:
            given |= {f"-{letter}": True for letter in word[1:]}
        else:
            raise Refused(f"bjobs: invalid option -- '{word[1]}'\n{text.BJOBS_USAGE}")
    lie = request.get("lie")
    if lie == "empty":
        return [0, "", ""]
    none = core.config["none_code"]
    if words:
        jobs, errors = picked(core, words)
        if lie == "forget":
            jobs, errors = [], "".join(f"Job <{word}> is not found\n" for word in words)
        code = 255 if errors else 0
    else:
        me = request["uid"]
        jobs = [job for job in remembered(core) if given.get("-u") == "all" or job["uid"] == me]
        if "-J" in given:
            jobs = [job for job in jobs if matches(given["-J"], job)]
        if "-p" in given:
            jobs = [job for job in jobs if job["state"] in ("pending", "held")]
        elif "-a" not in given:
            jobs = [job for job in jobs if job["state"] != "done"]
        words = f"Job <{given['-J']}> is not found" if "-J" in given else "No job found" if "-a" in given else "No unfinished job found"
        errors, code = ("", 0) if jobs else (words + "\n", 254)
    if code and none is not None:
        code = none
    state = lambda job: stat(core, job)
    for job in jobs:
        job["shown"] = state(job)
    if "-o" in given:
        return [code, columns(core, given, jobs, errors), "" if "-json" in given else errors]
    if not jobs:
        return [code, "", errors]
    if "-l" in given:
        out = "".join(text.long_list(job, state(job), ibm(core), exit_reason(core, job)) for job in jobs)
    elif "-p" in given:
        jobs = [job for job in jobs if job["state"] in ("pending", "held")]
        out = text.waiting(jobs, state, lambda job: reasons(core, job))
    else:
        out = text.table(jobs, state, "-w" in given)
    return [code, out, errors]


def columns(core, given, jobs, errors):
    delimiter = re.search(r"delimiter='(.)'", given["-o"])
    names = re.sub(r"delimiter='.'", "", given["-o"]).split()
    records = []
    for job in jobs:
        limit = f"{job['walltime'] / 60:.1f}" if job["walltime"] else ""
        run = f"{int((job['ended'] or core.now()) - job['started'])} second(s)" if job["started"] else ""
        waits = reasons(core, job) if job["state"] in ("pending", "held") else []
        records.append(text.fields(names, job, stat(core, job), exit_reason(core, job), waits, limit, run))
    if "-json" in given:
        unknown = [{"jobid": re.sub(r"\D", "", line), "error": line} for line in errors.splitlines() if "Job <" in line]
        return text.document(records + unknown)
    mark = delimiter.group(1) if delimiter else " "
    return "".join(mark.join(value or "-" for value in record.values()) + "\n" for record in records)


def bkill(core, request):
    words, number, remove = list(request["args"]), None, False
    if words and words[0] == "-s":
        number, words = getattr(signal, "SIG" + words[1].removeprefix("SIG")), words[2:]
    elif words and words[0] == "-r":
        words, remove = words[1:], True
    if not words:
        raise Refused(text.BKILL_USAGE)
    out, err = "", ""
    if words == ["0"]:
        words = [job["key"] for job in core.jobs.values() if job["state"] != "done" and job["uid"] == request["uid"]]
    for word in words:
        jobs, errors = picked(core, [word])
        if errors:
            err += errors.replace("> is not found", ">: No matching job found")
        for job in jobs:
            if job["state"] in ("done", "ending") or job["attrs"].get("zombie") and not remove:
                err += f"Job <{job['key']}>: Job has already finished\n"
            elif job["uid"] != request["uid"]:
                err += f"Job <{job['key']}>: User permission denied\n"
            elif silent(core, job) and number in (None, signal.SIGKILL):
                lost(core, job, remove)
                out += f"Job <{job['key']}> is being terminated\n"
            elif silent(core, job):
                # The node hears no signal.
                out += f"Job <{job['key']}> is being signaled\n"
            elif number in (None, signal.SIGKILL):
                core.end(job, "bkill")
                out += f"Job <{job['key']}> is being terminated\n"
            elif job["state"] != "running":
                err += f"Job <{job['key']}>: Job has not started yet\n"
            else:
                core.signal(job, number)
                out += f"Job <{job['key']}> is being signaled\n"
    return [255 if err else 0, out, err]


def lost(core, job, remove):
    """Ends a job on a node of which nothing is heard."""
    core.changed = True
    job["attrs"]["zombie"] = True
    if remove:
        # The node kills what it finds when it is back. Nobody sees when: so now.
        batch.signal_session(job["session"], signal.SIGKILL)
        job.update(state="done", ended=core.now(), why="removed")


def brequeue(core, request):
    jobs, err = picked(core, request["args"])
    out = ""
    for job in jobs:
        if job["state"] != "running":
            err += f"Job <{job['key']}>: Job has {'already finished' if job['state'] == 'done' else 'not started yet'}\n"
            continue
        job["attrs"]["requeue"] = True
        core.end(job, "brequeue")
        out += f"Job <{job['key']}> is being requeued \n"
    return [255 if err else 0, out, err]


def put_back(core, job):
    """A job that brequeue has killed goes back into the queue, under its number."""
    job["shown"] = stat(core, job)
    past = text.run(job, job["shown"], ibm(core), exit_reason(core, job)) + text.put_back(core.now())
    job["attrs"]["not_before"] = core.now() + core.config["requeue_pause"][1]
    job["attrs"]["past"] = job["attrs"].get("past", "") + past
    del job["attrs"]["requeue"]
    job.update(state="pending", session=None, node=None, slot=None, started=None, ended=None, steps=[])
    job.update(code=None, signal=None, why=None, sent=None, wait=["new"])
    core.changed = True


def bstop(core, request):
    return hold(core, request, True)


def bresume(core, request):
    return hold(core, request, False)


def hold(core, request, stop):
    out = ""
    for job in picked(core, request["args"])[0]:
        if job["state"] in ("pending", "held"):
            job["state"] = "held" if stop else "pending"
        elif job["state"] == "running":
            job["attrs"]["stopped"] = stop
            batch.signal_session(job["session"], signal.SIGSTOP if stop else signal.SIGCONT)
        core.changed = True
        out += f"Job <{job['key']}> is being {'stopped' if stop else 'resumed'}\n"
    return [0, out, ""]


def bhist(core, request):
    words = [word for word in request["args"] if re.match(r"\d+(\[|$)", word)]
    if "-n" in request["args"]:
        words.remove(request["args"][request["args"].index("-n") + 1])
    out = err = ""
    for word in words:
        jobs = [job for job in core.jobs.values() if word in (job["key"], str(job["number"]))]
        for job in jobs:
            job["shown"] = stat(core, job)
            out += text.history(job, stat(core, job), ibm(core), exit_reason(core, job))
        err += "" if jobs else "No matching job found\n"
    return [255 if err and not out else 0, out, err]


# The site.


def lsid(core, request):
    return [0, lsid_text(core.config), ""]


def lsid_text(config):
    name = "IBM Spectrum LSF Standard 10.1.0.12, Jun 10 2021\nCopyright International Business Machines Corp. 1992, 2016."
    if config["flavour"] != "ibm":
        name = "openlava project 2.2, Nov 23 2026"
    return f"{name}\n\nMy cluster name is {config['flavour']}\nMy master name is {config['host']}\n"


def bqueues(core, request):
    words = [word for word in request["args"] if not word.startswith("-")]
    unknown = [word for word in words if word not in core.config["queues"]]
    if unknown:
        raise Refused("".join(f"{word}: No such queue\n" for word in unknown))
    queues = {name: queue for name, queue in core.config["queues"].items() if not words or name in words}
    if "-l" in request["args"]:
        return [0, text.queues_long(queues, core.config["default_queue"], core.jobs), ""]
    return [0, text.queues_short(queues), ""]


def bhosts(core, request):
    out = "HOST_NAME          STATUS          JL/U    MAX  NJOBS    RUN  SSUSP  USUSP    RSV \n"
    for node in core.config["nodes"]:
        here = [job for job in core.jobs.values() if job["node"] == node["name"] and job["state"] == "running"]
        used = sum(job["cpus"] for job in here)
        state = "unavail" if node["name"] in core.config["silent"] else "ok"
        out += f"{node['name']:<18} {state:<15}    - {node['cpus']:>6} {used:>6} {used:>6}      0      0      0\n"
    return [0, out, ""]


def lshosts(core, request):
    out = "HOST_NAME      type    model  cpuf ncpus maxmem maxswp server RESOURCES\n"
    for node in core.config["nodes"]:
        out += f"{node['name']:<13} linux  IntelI5 100.0 {node['cpus']:>5} {node['memory'] >> 20}M      -    Yes (cs)\n"
    return [0, out, ""]


def bparams(core, request):
    config = core.config
    out = f"\nSystem default queues for automatic queue selection:\n    DEFAULT_QUEUE = {config['default_queue']}\n\n"
    out += f"The amount of time during which finished jobs are kept in core:\n    CLEAN_PERIOD = {config['clean_period']} (seconds)\n\n"
    out += f"The maximum number of jobs in a job array.\n    MAX_JOB_ARRAY_SIZE = {config['max_array_size']}\n\n"
    if config["per_task"]:
        out += "Resources are reserved for each task:\n    RESOURCE_RESERVE_PER_TASK = Y\n\n"
    return [0, out, ""]
