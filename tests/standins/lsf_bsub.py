"""LSF's bsub: its options, what it refuses, and the record it makes."""

import re

import core as batch
import lsf_text as text

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# Options of bsub with an argument, and without, as OpenLava's own parser takes them: an argument may be attached.
WITH = "E T a w f k R m J L u is i o e n q b t sp s c v p W F D S C M O P X".split()
BARE = "Ip Is I r H x N B h V K Zs".split()
IBM_WITH = ["cwd", "oo", "eo", "gpu", "env", "app", "sla", "G", "g", "rnc", *WITH]
IBM_BARE = ["Ne", "Ns", "rn", *BARE]


class Refused(Exception):
    def __init__(self, words, out=""):
        super().__init__(words)
        self.words, self.out = words, out


def ibm(core):
    return core.config["flavour"] == "ibm"


def options(words, with_argument, bare):
    """Options and what follows them."""
    found, words = {}, list(words)
    while words and words[0].startswith("-"):
        word = words.pop(0)[1:]
        name = next((n for n in sorted(with_argument + bare, key=len, reverse=True) if word.startswith(n)), None)
        if name is None:
            raise Refused(f"bsub: illegal option -- {word}\n{text.BSUB_USAGE}")
        rest = word[len(name) :]
        if name in bare:
            if rest:
                raise Refused(f"bsub: option cannot have an argument -- {name}\n{text.BSUB_USAGE}")
            found[name] = True
            continue
        if not rest and not words:
            raise Refused(f"bsub: option requires an argument -- {name}\n{text.BSUB_USAGE}")
        value = rest or words.pop(0)
        found[name] = f"{found[name]} {value}" if name == "R" and name in found and "cwd" in with_argument else value
    return found, words


def embedded(script):
    """Words of the #BSUB lines, wherever they stand."""
    words = []
    for line in script.splitlines():
        match = re.match(r"\s*#\s*BSUB\s*(-.*)", line)
        rest = match.group(1) if match else ""
        while rest := rest.lstrip():
            if rest.startswith("#"):
                break
            single, double = rest.find("'"), rest.find('"')
            mark = "'" if single >= 0 and (double < 0 or single < double) else '"'
            if rest.startswith(mark):
                value, _, rest = rest[1:].partition(mark)
            else:
                value, _, rest = rest.partition(" ")
            words.append(value)
    return words


def bsub(core, request):
    config, env = core.config, request["env"]
    known = (IBM_WITH, IBM_BARE) if ibm(core) else (WITH, BARE)
    given, rest = options(request["args"], *known)
    script = " ".join(rest)
    if not rest:
        script = request["stdin"]
        given = {**options(embedded(script), *known)[0], **given}
        if not any(line.strip() and not line.lstrip().startswith("#") for line in script.splitlines()):
            raise Refused("No command is specified. Job not submitted.\n")
    esub = config["esub"]
    chatter = esub.get("err", "")
    if esub.get("refuse"):
        raise Refused(f"{esub['refuse']}\nRequest aborted by esub. Job not submitted.\n", esub.get("out", ""))
    names = given.get("q", env.get("LSB_DEFAULTQUEUE", "")).split() or [config["default_queue"]]
    if names[0] not in config["queues"]:
        raise Refused(f"{names[0]}: No such queue. Job not submitted.\n")
    queue = config["queues"][names[0]]
    if queue.get("denied"):
        raise Refused(f"{names[0]}: User cannot use the queue. Job not submitted.\n")
    if queue.get("status", "").startswith("Closed"):
        raise Refused(f"{names[0]}: Queue has been closed. Job not submitted.\n")
    slots = slots_of(core, given.get("n", "1"), queue)
    minutes = minutes_of(given.get("W"), queue)
    limit_of(core, given.get("M"), queue)
    memory = resources(core, given.get("R", ""), slots)
    name, spec, indexes = array(core, given.get("J") or script.split("\n")[0][:60])
    number = core.submit(
        {
            "name": name,
            "owner": batch.user_name(request["uid"]),
            "uid": request["uid"],
            "queue": names[0],
            "cpus": slots,
            "memory": memory,
            "walltime": minutes * 60 if minutes else None,
            "script": script,
            "cwd": request["cwd"],
            "env": {name: value for name, value in env.items() if not name.startswith("DCLUSTER_STANDIN")},
            "held": "H" in given,
            "attrs": {
                "spec": spec,
                "from": config["host"],
                "project": given.get("P", "default"),
                "output": given.get("oo", given.get("o")),
                "mail": not (ibm(core) and env.get("LSB_JOB_REPORT_MAIL") == "N"),
                "stdin": not rest,
            },
        },
        indexes,
    )
    where = "queue" if "q" in given else "default queue"
    words = "" if "BSUB_QUIET" in env else f"Job <{number}> is submitted to {where} <{names[0]}>.\n"
    return [0, esub.get("out", "") + words + esub.get("after", ""), chatter]


def slots_of(core, words, queue):
    slots = int(words.split(",")[0])
    total = sum(node["cpus"] for node in core.config["nodes"])
    if slots > queue.get("proclimit", slots) or not ibm(core) and slots > total:
        raise Refused("Too many processors requested. Job not submitted.\n")
    return slots


def minutes_of(words, queue):
    if words is None:
        return queue.get("runlimit")
    parts = words.split("/")[0].split(":")
    if not 1 <= len(parts) <= 2 or not all(part.isdigit() for part in parts):
        raise Refused(f"{words}: Bad RUNLIMIT specification. Job not submitted.\n")
    minutes = int(parts[-1]) + 60 * int(parts[0]) * (len(parts) - 1)
    if minutes > queue.get("runlimit", minutes):
        raise Refused("RUNLIMIT: Cannot exceed queue's hard limit(s). Job not submitted.\n")
    return minutes


def limit_of(core, words, queue):
    if words is None:
        return
    match = re.fullmatch(r"(\d+)([KMGT]?)B?" if ibm(core) else r"(\d+)()", words)
    if not match:
        raise Refused(f"{words}: MEMLIMT value should be a positive integer. Job not submitted.\n")
    size = int(match.group(1)) * UNITS[match.group(2) or (core.config["unit"] or "K")[0]]
    if size > queue.get("memlimit", size) * 1024 if "memlimit" in queue else False:
        raise Refused("MEMLIMIT: Cannot exceed queue's hard limit(s). Job not submitted.\n")


def resources(core, requirement, slots):
    """Bytes that a job reserves."""
    bad = Refused("Bad resource requirement syntax. Job not submitted.\n")
    left = re.sub(r"\b(select|order|rusage|span|same|cu|affinity)\[[^\[\]]*\]", " ", requirement)
    if re.search(r"[\[\]]", left) or ("affinity[" in requirement and not ibm(core)):
        raise bad
    memory = 0
    for section in re.findall(r"rusage\[([^\]]*)\]", requirement):
        for part in re.split("[:,]", section):
            match = re.fullmatch(r"\s*(mem|swp|tmp)\s*=\s*(\d+)([KMGT]?)B?(/\w+)?\s*", part)
            if not match or (match.group(3) or match.group(4)) and not ibm(core):
                raise bad
            if match.group(1) == "mem":
                memory = int(match.group(2)) * UNITS[match.group(3) or (core.config["unit"] or "M")[0]]
    return memory * (slots if core.config["per_task"] else 1)


def array(core, words):
    match = re.fullmatch(r"(.*?)\[([^\]]*)\](?:%\d+)?", words)
    if not match:
        return words, words, None
    indexes = []
    for part in match.group(2).split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if not bounds or int(bounds.group(1)) == 0:
            raise Refused("Bad job name. Job not submitted.\n")
        last = int(bounds.group(2) or bounds.group(1))
        if last > core.config["max_array_size"]:
            raise Refused("Job array index too large. Job not submitted.\n")
        indexes += range(int(bounds.group(1)), last + 1, int(bounds.group(3) or 1))
    return match.group(1), words, indexes
