"""qsub: what it reads, refuses and makes of a job."""

import getopt
import os
import re
import shlex

import core as batch
from pbs_errors import DENIED, Refused, torque, version
from pbs_text import QSUB_USAGE as USAGE


def qsub(core, request):
    letters = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:t:u:v:VW:Xz"
    if request["args"] == ["--version"]:
        return version(core)
    options, operands = getopt.gnu_getopt(request["args"], letters)
    source = operands[0] if operands and operands[0] != "-" else None
    if source is None:
        script, name = request["stdin"], "STDIN"
    else:
        try:
            with open(os.path.join(request["cwd"], source), encoding="utf-8", errors="surrogateescape", newline="") as f:
                script = f.read()
        except OSError:
            raise Refused(1, "script file:: No such file or directory") from None
        name = os.path.basename(source)[:15]
    if "\r\n" in script:
        raise Refused(1, "script contains cr, lf")
    given = {}
    prefix = dict(options).get("-C", request["env"].get("PBS_DPREFIX", "#PBS")) + " "
    for line in script.split("\n"):
        if not line.startswith("#") and line.strip():
            break
        if line.startswith(prefix):
            words = shlex.split(line[len(prefix) :])
            try:
                said, rest = getopt.getopt(words, letters)
            except getopt.GetoptError as error:
                words = f"qsub: invalid option -- '{error.opt}'\nqsub: directive error: {line[5:]} \n"
                return [1, "", words]
            if rest:
                raise Refused(1, f"directive error: {line[5:]} ")
            take(given, said)
    # The command line wins.
    first = {}
    take(first, options)
    resources = {**given.pop("l", {}), **first.pop("l", {})}
    given.update(first)
    name = given.get("N", name)
    if not re.fullmatch(r"[A-Za-z0-9._+-]+", name):
        return [2, "", "qsub: illegal -N value\n" + USAGE]
    limit = 15 if torque(core) else 230
    if len(name) > limit:
        raise Refused(2, "Job name is too long ")
    if not set(given.get("k", "n")) <= set(core.config["keep"]):
        return [2, "", "qsub: illegal -k value\n" + USAGE]
    indexes = array_of(core, given)
    attrs = shape(resources)
    queue_name = given.get("q", core.config["default_queue"])
    admit(core, request, queue_name, attrs, len(indexes or [0]))
    host, home = core.config["host"], request["env"].get("HOME", "/")
    user = batch.user_name(request["uid"])
    variables = {"PBS_O_HOME": home, "PBS_O_LANG": request["env"].get("LANG"), "PBS_O_LOGNAME": user}
    variables |= {"PBS_O_PATH": request["env"].get("PATH"), "PBS_O_SHELL": request["env"].get("SHELL")}
    variables |= {"PBS_O_INTERACTIVE_AUTH_METHOD": "resvport", "PBS_O_INTERACTIVE_ENCRYPT_METHOD": ""}
    variables |= {"PBS_O_WORKDIR": request["cwd"], "PBS_O_SYSTEM": "Linux", "PBS_O_QUEUE": queue_name}
    variables = {key: value for key, value in variables.items() if value is not None} | {"PBS_O_HOST": host}
    if "V" in given:
        variables = {**request["env"], **variables}
    attrs |= {
        "options": given,
        "resources": resources,
        "variables": variables,
        "home": home,
        "arguments": " ".join(request["args"]),
        "array": f"{indexes[0]}-{indexes[-1]}" if indexes else None,
    }
    spec = {"name": name, "owner": user, "uid": request["uid"], "queue": queue_name, "script": script, "attrs": attrs}
    spec |= {"cpus": attrs["cpus"], "memory": attrs["memory"], "walltime": attrs["walltime"], "held": "h" in given}
    number = core.submit(spec, indexes)
    return [0, f"{number}{'[]' if indexes else ''}.{host}\n", ""]


def take(given, options):
    for option, value in options:
        if option == "-l":
            for part in split_resources(value):
                key, _, amount = part.partition("=")
                given.setdefault("l", {})[key] = amount
        else:
            given[option[1:]] = value


def split_resources(value):
    return [part for part in value.split(",") if part]


def array_of(core, given):
    if torque(core):
        wanted = given.get("t")
        if wanted is None:
            return None
        first, _, last = wanted.partition("-")
        return list(range(int(first), int(last or first) + 1))
    if "J" not in given:
        return None
    match = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?:%\d+)?", given["J"])
    if not match or int(match[1]) >= int(match[2]):
        raise Refused(2, "illegal -J value\n" + USAGE.rstrip())
    if given.get("r") == "n":
        raise Refused(2, " cannot submit non-rerunable Array Job\n" + USAGE.rstrip())
    indexes = list(range(int(match[1]), int(match[2]) + 1, int(match[3] or 1)))
    if len(indexes) > core.config["max_array_size"]:
        raise Refused(3, "Array job exceeds server or queue size limit")
    return indexes


def size(words):
    match = re.fullmatch(r"(\d+)([kmgt]?)[bw]?", words.lower())
    if not match:
        raise Refused(166, "Illegal attribute or resource value Resource_List.select.mem")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2]]


def seconds(words):
    if not re.fullmatch(r"(\d+:){0,2}\d+", words):
        raise Refused(166, "Illegal attribute or resource value Resource_List.walltime")
    total = 0
    for part in words.split(":"):
        total = total * 60 + int(part)
    return total


def shape(resources):
    found = {"cpus": 1, "memory": 0, "walltime": None}
    for key, value in resources.items():
        if key == "select" or key == "nodes":
            for part in value.split(":")[1:]:
                what, _, amount = part.partition("=")
                if what in ("ncpus", "ppn"):
                    found["cpus"] = int(amount)
                elif what == "mem":
                    found["memory"] = size(amount)
        elif key == "walltime":
            found["walltime"] = seconds(value)
        elif key in ("mem", "ncpus"):
            if "select" in resources:
                raise Refused(5, f'"-lresource=" cannot be used with "select" or "place", resource is: {key}')
            found["memory" if key == "mem" else "cpus"] = size(value) if key == "mem" else int(value)
        elif key not in ("place", "nodect", "software", "cput"):
            raise Refused(187, f"Unknown resource Resource_List.{key}")
    return found


def admit(core, request, name, attrs, count):
    queue = core.config["queues"].get(name)
    says = "submit error (%s MSG=%s)" if torque(core) else None
    if request["uid"] == 0 and core.config.get("root_refused"):
        raise Refused(175, "Bad UID for job execution")
    if queue is None:
        raise Refused(170, says % ("Unknown queue", "cannot locate queue") if says else "Unknown queue")
    if not queue.get("enabled", True):
        raise Refused(173, "Queue is not enabled")
    if queue.get("acl") is False:
        raise Refused(DENIED, "Unauthorized Request ")
    most = queue.get("resources_max", {})
    over = "walltime" in most and (attrs["walltime"] or 0) > seconds(most["walltime"])
    over |= "ncpus" in most and attrs["cpus"] > int(most["ncpus"])
    over |= "mem" in most and attrs["memory"] > size(most["mem"])
    if over:
        raise Refused(188, "Job violates queue and/or server resource limits")
    if core.config["hook"]:
        raise Refused(32, core.config["hook"])
    limit = queue.get("max_queued")
    alive = [j for j in core.jobs.values() if j["queue"] == name and j["state"] != "done"]
    if limit is not None and len(alive) + count > limit:
        raise Refused(38, f"would exceed queue {name}'s per-user limit")
