"""Formats and texts of LSF's commands: OpenLava 2.2 as captured, IBM 10.1 as published."""

import json
import time

BJOBS_USAGE = """Usage: bjobs [-h] [-V] [-w |-l] [-a] [-d] [-p] [-s] [-r] [-A]
             [-m host_name] [-q queue_name] [-u user_name | -u all]
             [-P project_name] [-N host_spec]
             [-J name_spec] [jobId | "jobId[idxList]" ...]
"""
BSUB_USAGE = """Usage: bsub [-h] [-V] [-x] [-H] [-r] [-N] [-B] [-I | -K | -Ip | -Is]
\t\t[-L login_shell] [-c cpu_limit[/host_spec]] [-F file_limit]
\t\t[-W run_limit[/host_spec]] [-k chkpnt_dir [chkpnt_period] [method=chkpnt_dir]]
"""
BKILL_USAGE = """Job ID or one of '-m', '-u' '-q' and '-J' must be specified.
Usage: bkill [-h] [-V] [-l] [-m host_name] [-q queue_name]
               [-u user_name | -u all] [0] [-r | -s sigval] [-J job_name] 
               [jobId | "jobId[index_list]"]...
"""


def short_time(seconds):
    return time.strftime("%b %e %H:%M", time.localtime(seconds))


def stamp(seconds):
    return time.strftime("%a %b %e %H:%M:%S", time.localtime(seconds))


def display_name(job):
    return job["name"] if job["index"] is None else f"{job['name']}[{job['index']}]"


def cut(text, width):
    """Names are cut at their beginning."""
    return text if len(text) <= width else "*" + text[1 - width :]


def hosts(job):
    return [job["node"]] * max(1, job["cpus"]) if job["node"] else []


def table(jobs, state, wide):
    head = "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n"
    lines = []
    for job in jobs:
        on, name, when = hosts(job), display_name(job), short_time(job["submitted"])
        if wide:
            host = ":".join(on) or "   -   "
            lines.append(
                f"{job['number']:<7} {job['owner']:<7} {state(job):<5} {job['queue']:<10} {job['attrs']['from']:<11} "
                f"{host:<11} {name:<10} {when}\n"
            )
            continue
        lines.append(
            f"{job['number']:<7} {job['owner'][:7]:<7} {state(job):<5} {job['queue'][:10]:<10} "
            f"{job['attrs']['from'][:11]:<11} {(on or [''])[0][:11]:<11} {cut(name, 10):<10} {when}\n"
        )
        lines += [f"{'':45}{host}\n" for host in on[1:]]
    return head + "".join(lines)


def waiting(jobs, state, reasons):
    head = "JOBID   USER    STAT  QUEUE       FROM_HOST      JOB_NAME           SUBMIT_TIME\n"
    lines = []
    for job in jobs:
        lines.append(
            f"{job['number']:<7} {job['owner'][:7]:<7} {state(job):<5} {job['queue'][:11]:<11} "
            f"{job['attrs']['from'][:14]:<14} {cut(display_name(job), 18):<18} {short_time(job['submitted'])}\n"
        )
        lines += [f" {reason};\n" for reason in reasons(job)]
    return head + "".join(lines)


def fold(text):
    """At 80 columns, also within words; what follows is behind 21 blanks."""
    first, rest = text[:79], text[79:]
    lines = [first]
    while rest:
        lines.append(" " * 21 + rest[:58])
        rest = rest[58:]
    return "\n".join(lines) + "\n"


def end_words(job, ibm, reason):
    used = "The CPU time used is 0.0 seconds"
    tail = f"; Completed <exit>; {reason};" if ibm and reason else "."
    if job["node"] is None:
        return "Exited"
    if job["shown"] == "DONE":
        return f"Done successfully. {used}."
    if job["code"] is None or job["code"] == 0:
        return f"Exited. {used}{tail}"
    return f"Exited with exit code {job['code']}. {used}{tail}"


def long_list(job, stat, ibm, reason):
    key = f"{job['number']}[{job['index']}]" if job["index"] is not None else f"{job['number']}"
    name = job["attrs"]["spec"]
    out = "\n" + fold(
        f"Job <{key}>, Job Name <{name}>, User <{job['owner']}>, Project <{job['attrs']['project']}>, "
        f"Status <{stat}>, Queue <{job['queue']}>, Command <{job['script'][:200].replace(chr(10), ';')}>"
    )
    out += fold(f"{stamp(job['submitted'])}: Submitted from host <{job['attrs']['from']}>, CWD <{job['cwd']}>;")
    if job["walltime"] is not None:
        out += f"\n RUNLIMIT                \n {job['walltime'] / 60:.1f} min of {job['attrs']['from']}           \n"
    if job["started"]:
        out += fold(f"{stamp(job['started'])}: Started on <{job['node']}>, Execution Home </home/x>;")
    if stat in ("DONE", "EXIT"):
        out += fold(f"{stamp(job['ended'])}: {end_words(job, ibm, reason)}")
    return out + "\n SCHEDULING PARAMETERS:\n           r15s   r1m  r15m   ut      pg    io   ls    it    tmp    swp    mem\n"


def history(job, stat, ibm, reason):
    key = f"{job['number']}[{job['index']}]" if job["index"] is not None else f"{job['number']}"
    out = "\n" + fold(
        f"Job <{key}>, Job Name <{job['attrs']['spec']}>, User <{job['owner']}>, "
        f"Project <{job['attrs']['project']}>, Command <x>"
    )
    out += fold(f"{stamp(job['submitted'])}: Submitted from host <{job['attrs']['from']}>, to Queue <{job['queue']}>;")
    out += job["attrs"].get("past", "") + run(job, stat, ibm, reason)
    return out + f"\nSummary of time in seconds spent in various states by  {stamp(time.time())}\n"


def run(job, stat, ibm, reason):
    """What bhist says of one run."""
    out = ""
    if job["started"]:
        out += fold(f"{stamp(job['started'])}: Dispatched to <{job['node']}>;")
        out += fold(f"{stamp(job['started'])}: Starting (Pid {job['session']});")
    if job["why"] == "bkill":
        out += fold(f"{stamp(job['ended'] or time.time())}: Signal <KILL> requested by user or administrator <{job['owner']}>;")
    if job["attrs"].get("requeue"):
        out += fold(f"{stamp(job['ended'] or time.time())}: Signal <KILLREQUEUE> requested by user or administrator <{job['owner']}>;")
    if stat in ("DONE", "EXIT"):
        out += fold(f"{stamp(job['ended'])}: {end_words(job, ibm, reason).rstrip('.')};")
    return out


def put_back(now):
    return fold(f"{stamp(now)}: Pending: Job has been requeued;")


def fields(names, job, stat, reason, waits, limit, run):
    known = {
        "jobid": str(job["number"]),
        "jobindex": str(job["index"] or 0),
        "stat": stat,
        "user": job["owner"],
        "queue": job["queue"],
        "job_name": display_name(job),
        "exec_host": ":".join(hosts(job)),
        "exit_code": str(job["code"]) if stat == "EXIT" and job["code"] else "",
        "exit_reason": reason,
        "pend_reason": "".join(f"{why};" for why in waits),
        "runtimelimit": limit,
        "run_time": run,
    }
    return {name: known[name] for name in names}


def document(records):
    records = [{name.upper(): value for name, value in record.items()} for record in records]
    text = json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}, indent=2)
    return text.replace("/", "\\/") + "\n"


def queues_long(queues, default, jobs):
    out = []
    for name, queue in queues.items():
        note = "  This is the default queue." if name == default else ""
        status = queue.get("status", "Open:Active")
        text = f"\nQUEUE: {name}\n  -- a queue.{note}\n\nPARAMETERS/STATISTICS\n"
        text += "PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV \n"
        text += f" 30   20  {status:<14}   -    -    -    -     0     0     0     0     0    0\n"
        text += "Interval for a host to accept two jobs is 0 seconds\n"
        head, values = "", ""
        if "runlimit" in queue:
            head, values = f" {'RUNLIMIT':<25}", f" {queue['runlimit']:.1f} min of vm".ljust(26)
        if "proclimit" in queue:
            head, values = head + f"{'PROCLIMIT':<25}", values + str(queue["proclimit"])
        if head:
            text += f"\n{head}\n{values}\n"
        if "memlimit" in queue:
            text += f"\n MEMLIMIT\n {queue['memlimit']} K\n"
        text += "\nSCHEDULING PARAMETERS\n           r15s   r1m  r15m   ut      pg    io   ls    it    tmp    swp    mem\n"
        text += f"\nUSERS:  {'openlava ' if queue.get('denied') else 'all users'}\n"
        out.append(text + "HOSTS:  all hosts used by the LSF Batch system\n")
    return ("\n" + "-" * 79 + "\n").join(out) + "\n"


def queues_short(queues):
    head = "QUEUE_NAME      PRIO STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN  SUSP \n"
    return head + "".join(f"{n:<15}  30  {q.get('status', 'Open:Active'):<14}  -    -    -    -     0     0     0     0\n" for n, q in queues.items())


def report(job, words, output):
    return (
        f"Sender: LSF System <lsf@{job['node']}>\nSubject: Job {job['number']}: <{job['name']}> {words}\n\n"
        f"Job <{job['name']}> was submitted from host <{job['attrs']['from']}> by user <{job['owner']}>.\n\n"
        f"Your job looked like:\n\n# LSBATCH: User input\n{job['script']}\n\n{words}.\n\n"
        f"The output (if any) follows:\n\n{output}\n"
    )
