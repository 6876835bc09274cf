"""How PBS prints: tables, `-f` with folded lines, JSON; each as captured from OpenPBS 23.06.06."""

import json
import time

import pbs

QSUB_USAGE = """usage: qsub [-a date_time] [-A account_string] [-c interval]
\t[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
\t[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
\t[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
\t[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
\t[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""
QSTAT_USAGE = """usage: 
qstat [-f] [-J] [-p] [-t] [-x] [-E] [-F format | -w] [-D delim] [ job_identifier... | destination... ]
qstat [-a|-i|-r|-H|-T] [-J] [-t] [-u user] [-n] [-s] [-G|-M] [-1] [-w]
\t[ job_identifier... | destination... ]
qstat -Q [-f] [-F format] [-D delim] [ destination... ]
qstat -q [-G|-M] [ destination... ]
qstat -B [-f] [-F format] [-D delim] [ server_name... ]
qstat --version
"""
WIDTH = 79


def when(seconds):
    return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(seconds))


def at(seconds):
    return time.strftime("%a %b %d at %H:%M", time.localtime(seconds))


def clock(seconds):
    seconds = int(seconds)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def state(core, job):
    if job["state"] == "done":
        array_lives = job["index"] is not None and any(j["state"] != "done" for j in core.of(job["number"]))
        if pbs.torque(core):
            return "C"
        return "X" if array_lives else "F"
    if job["state"] == "pending" and job["attrs"].get("not_before", 0) > core.now():
        return "W"
    return {"held": "H", "pending": "Q", "running": "R", "ending": "E"}[job["state"]]


def comment(core, job):
    where = f"({job['node']}:ncpus={job['cpus']}" + (f":mem={job['memory'] >> 10}kb)" if job["memory"] else ")")
    if job["started"] is not None:
        run = f"Job run at {at(job['started'])} on {where}"
        if job["state"] != "done":
            return run
        if job["why"] == "walltime":
            return run + " and exceeded resource walltime"
        if job["why"]:
            return run + f" and terminated by {job['owner']}@{core.config['host']}"
        return run + (" and finished" if job["code"] == 0 else " and failed")
    if job["why"]:
        return f"Job deleted as {job['why']}ed by {job['owner']}" if pbs.torque(core) else None
    match job["wait"]:
        case ["never", "node", *_]:
            return "Not Running: Not enough free nodes available"
        case ["busy" | "never" as how, what, wanted, free, total]:
            words = "Can Never Run" if how == "never" else "Not Running"
            if what == "memory":
                wanted, free, total = (f"{amount >> 10}kb" for amount in (wanted, free, total))
            name = {"cpus": "ncpus", "memory": "mem"}[what]
            return f"{words}: Insufficient amount of resource: {name} (R: {wanted} A: {free} T: {total})"
        case ["queue"]:
            return "Not Running: Queue not started."
    return None


def paths(core, job, number):
    host, options = core.config["host"], job["attrs"]["options"]
    index = "" if job["attrs"]["array"] is None else ".^array_index^"
    default = f"{host}:{job['attrs']['home']}/{job['name']}.%s{number}{index}"
    return {
        "Error_Path": f"{host}:{options['e']}" if "e" in options else default % "e",
        "Output_Path": f"{host}:{options['o']}" if "o" in options else default % "o",
    }


def common(core, job):
    """What job and array have in common, as pairs in the order of `qstat -f`."""
    attrs = job["attrs"]
    files = paths(core, job, job["number"])
    resources = {f"Resource_List.{key}": value for key, value in sorted(attrs["resources"].items())}
    resources |= {"Resource_List.ncpus": job["cpus"], "Resource_List.nodect": 1}
    if job["walltime"] is not None:
        resources["Resource_List.walltime"] = clock(job["walltime"])
    return attrs, files, resources


def job(core, job):
    """All attributes of a job or an element."""
    attrs, files, resources = common(core, job)
    host, letter, ran = core.config["host"], state(core, job), job["started"] is not None
    element = job["index"] is not None
    name = f"{job['name']}-{job['index']}" if element and pbs.torque(core) else job["name"]
    if element and letter == "X" and not core.config["history"] or element and letter == "Q":
        # A record that shows what its parent does.
        all_of = core.of(job["number"])
        fields = parent(core, all_of)
        for key in [key for key in fields if key.startswith("array")]:
            del fields[key]
        fields["job_state"] = letter
        if letter == "X":
            fields["comment"] = "Subjob finished"
        elif said := comment(core, job):
            fields["comment"] = said
        return fields
    fields = {"Job_Name": name, "Job_Owner": f"{job['owner']}@{host}"}
    if ran:
        used = (job["ended"] or core.now()) - job["started"]
        fields |= {"resources_used.cpupercent": 0, "resources_used.cput": "00:00:00", "resources_used.mem": "0kb"}
        fields |= {"resources_used.ncpus": job["cpus"], "resources_used.vmem": "0kb"}
        fields["resources_used.walltime"] = clock(used / core.config["second"])
    fields |= {"job_state": letter, "queue": job["queue"], "server": host}
    if "A" in attrs["options"]:
        fields["Account_Name"] = attrs["options"]["A"]
    fields |= {"Checkpoint": "u", "ctime": when(job["submitted"]), "Error_Path": files["Error_Path"]}
    if ran:
        fields["exec_host"] = f"{job['node']}/{job['slot']}" + (f"*{job['cpus']}" if job["cpus"] > 1 else "")
        fields["exec_vnode"] = f"({job['node']}:ncpus={job['cpus']})"
    fields |= {"Hold_Types": "u" if letter == "H" else "n", "Join_Path": attrs["options"].get("j", "n")}
    fields |= {"Keep_Files": attrs["options"].get("k", "n"), "Mail_Points": attrs["options"].get("m", "a")}
    fields |= {"mtime": when(job["ended"] or job["started"] or job["submitted"]), "Output_Path": files["Output_Path"]}
    fields |= {"Priority": 0, "qtime": when(job["submitted"]), "Rerunable": str(attrs["options"].get("r", "y") != "n")}
    fields |= resources
    if ran:
        fields["stime"] = when(job["started"])
    if letter in "XFC" and ran:
        fields["obittime"] = when(job["ended"])
    if job["session"]:
        fields |= {"session_id": job["session"], "jobdir": attrs["home"]}
    ends = {None: 93, "walltime": 93}
    done = 92 if job["code"] == 0 and not job["why"] else ends.get(job["why"], 91)
    fields["substate"] = {"Q": 10, "H": 20, "R": 42, "E": 51, "W": 30}.get(letter, done)
    fields["Variable_List"] = attrs["variables"]
    if said := comment(core, job):
        fields["comment"] = said
    fields |= {"etime": when(job["submitted"])}
    if ran:
        fields["run_count"] = job["runs"]
    if "stageout" in attrs and letter in "XFC":
        fields["Stageout_status"] = attrs["stageout"]
    status = pbs.exit_status(job)
    if status is not None:
        fields["exit_status" if pbs.torque(core) else "Exit_status"] = status
    fields["Submit_arguments"] = attrs["arguments"]
    if element:
        fields |= {"array_id": f"{job['number']}[].{host}", "array_index": job["index"]}
    if letter in "XF":
        fields["history_timestamp"] = int(job["ended"])
    return fields | {"project": "_pbs_project_default", "Submit_Host": host}


def parent(core, jobs):
    """All attributes of an array as a whole."""
    first = jobs[0]
    attrs, files, resources = common(core, first)
    host = core.config["host"]
    begun = [j for j in jobs if j["started"] is not None]
    done = [j for j in jobs if j["state"] == "done"]
    letter = "F" if len(done) == len(jobs) else "B" if begun else "H" if first["state"] == "held" else "Q"
    failed = any(pbs.exit_status(j) not in (0, None) for j in done)
    fields = {"Job_Name": first["name"], "Job_Owner": f"{first['owner']}@{host}", "job_state": letter}
    fields |= {"queue": first["queue"], "server": host, "Checkpoint": "u", "ctime": when(first["submitted"])}
    fields |= {"Error_Path": files["Error_Path"], "Hold_Types": "n", "Join_Path": attrs["options"].get("j", "n")}
    fields |= {"Keep_Files": "n", "Mail_Points": "a", "mtime": when(first["submitted"])}
    fields |= {"Output_Path": files["Output_Path"], "Priority": 0, "qtime": when(first["submitted"])}
    fields |= {"Rerunable": "True", **resources}
    if begun:
        fields["stime"] = when(min(j["started"] for j in begun))
    fields |= {"substate": {"Q": 10, "B": 70, "H": 20}.get(letter, 93 if failed else 92)}
    fields["Variable_List"] = attrs["variables"]
    if begun:
        ending = " and failed" if failed and letter == "F" else " and finished" if letter == "F" else ""
        fields["comment"] = f"Job Array Began at {at(begun[0]['started'])}{ending}"
    elif said := comment(core, first):
        fields["comment"] = said
    fields["etime"] = when(first["submitted"])
    if done:
        fields["Exit_status"] = int(failed)
    count = {what: sum(j["state"] in states for j in jobs) for what, states in
             {"Queued": ("pending", "held"), "Running": ("running",), "Exiting": ("ending",)}.items()}
    expired = len(done) if letter == "B" else 0
    fields |= {"Submit_arguments": attrs["arguments"], "array": "True"}
    fields["array_state_count"] = " ".join(f"{k}:{v}" for k, v in count.items()) + f" Expired:{expired}"
    fields["array_indices_submitted"] = attrs["array"]
    remaining = [j["index"] for j in jobs if j["started"] is None and j["state"] != "done"]
    fields["array_indices_remaining"] = f"{remaining[0]}-{remaining[-1]}" if remaining else "-"
    return fields | {"project": "_pbs_project_default", "Submit_Host": host}


def server(core):
    return {core.config["host"]: {
        "server_state": "Active",
        "server_host": core.config["host"],
        "scheduling": str(core.config["scheduling"]),
        "default_queue": core.config["default_queue"],
        "max_array_size": core.config["max_array_size"],
        "pbs_version": core.config["version"],
        "job_history_enable": str(core.config["history"]),
    }}


def queues(core, chosen, operands):
    shown = {}
    for name, queue in core.config["queues"].items():
        if operands and name not in operands:
            continue
        fields = {"queue_type": queue.get("queue_type", "Execution"), "total_jobs": 0}
        for group in ("resources_max", "resources_min", "resources_default"):
            fields |= {f"{group}.{key}": value for key, value in sorted(queue.get(group, {}).items())}
        if queue.get("max_queued") is not None:
            fields["max_queued"] = f"[u:PBS_GENERIC={queue['max_queued']}]"
        if queue.get("acl") is False:
            fields |= {"acl_user_enable": "True", "acl_users": "nobody"}
        fields |= {"enabled": str(queue.get("enabled", True)), "started": str(queue.get("started", True))}
        shown[name] = fields
    return [0, render(core, chosen, "Queue", shown), ""]


def node(core, node):
    here = [j for j in core.jobs.values() if j["node"] == node["name"] and j["state"] == "running"]
    used = sum(j["cpus"] for j in here)
    if pbs.torque(core):
        fields = {"state": "down" if node.get("down") else "free", "np": node["cpus"], "ntype": "cluster"}
        return fields | {"status": f"opsys=linux,physmem={node['memory'] >> 10}kb,ncpus={node['cpus']}"}
    fields = {"Mom": node["name"], "ntype": "PBS"}
    fields["state"] = "down" if node.get("down") else "job-busy" if used >= node["cpus"] else "free"
    fields |= {"pcpus": node["cpus"]}
    if here:
        fields["jobs"] = ", ".join(f"{j['key']}.{core.config['host']}/{j['slot']}" for j in here)
    fields |= {"resources_available.arch": "linux", "resources_available.host": node["name"]}
    fields |= {"resources_available.mem": f"{node['memory'] >> 10}kb", "resources_available.ncpus": node["cpus"]}
    for key, value in node.get("resources", {}).items():
        fields[f"resources_available.{key}"] = value
    fields |= {"resources_available.vnode": node["name"], "resources_assigned.ncpus": used}
    return fields | {"resv_enable": "True", "sharing": "default_shared", "license": "l"}


HEADS = {"Jobs": "Job Id: %s", "Queue": "Queue: %s", "Server": "Server: %s", "nodes": "%s"}


def render(core, chosen, what, shown):
    if chosen.get("-F") == "json":
        return json_document(core.config, what, shown)
    if "-f" in chosen:
        indent = 5 if what == "nodes" else 4
        parts = []
        for name, fields in shown.items():
            lines = [line(indent, key, value, "-w" in chosen) for key, value in fields.items()]
            parts.append(HEADS[what] % name + "\n" + "".join(lines) + "\n")
        return "".join(parts)
    return table(core, shown, "-w" in chosen)


def table(core, shown, wide):
    if not shown:
        return ""
    sizes = (30, 15, 15, 8, 1, 15) if wide else (17, 16, 16, 8, 1, 15)
    head = ""
    if core.config["server_comment"]:
        head = core.config["server_comment"] + "\n"
    rows = ["Job id            Name             User              Time Use S Queue\n"
            "----------------  ---------------- ----------------  -------- - -----\n"]
    for name, fields in shown.items():
        cut = lambda value, width: value if len(value) <= width else value[: width - 1] + "*"
        used = fields.get("resources_used.walltime", "0")
        owner = fields["Job_Owner"].partition("@")[0]
        rows.append(f"{cut(name, sizes[0]):{sizes[0]}} {cut(fields['Job_Name'], sizes[1]):{sizes[1]}} "
                    f"{cut(owner, sizes[2]):{sizes[2]}}  {used:>8} {fields['job_state']} {fields['queue']:{sizes[5]}} \n")
    return head + "".join(rows)


def escaped(value):
    return "".join("\\" + c if c in "\\,\"'" else c for c in str(value))


def line(indent, key, value, wide):
    if isinstance(value, dict):
        value = ",".join(f"{name}={escaped(word)}" for name, word in value.items())
    start = " " * indent + f"{key} = "
    value = str(value)
    if wide:
        return start + value + "\n"
    out, column, first = start, len(start), True
    words = value.split(",")
    for number, word in enumerate(words):
        word += "," if number + 1 < len(words) else ""
        if column + len(word) >= WIDTH and not first:
            out, column = out + "\n\t", 8
        for character in word:
            if column >= WIDTH and len(word) + 8 >= WIDTH or column >= WIDTH:
                out, column = out + "\n\t", 8
            out, column = out + character, column + 1
        first = False
    return out + "\n"


def json_document(config, what, shown):
    """As cJSON prints (tabs), or the hand-made one of the release (4 blanks, no final newline)."""
    document = {"timestamp": int(time.time()), "pbs_version": config["version"], "pbs_server": config["host"]}
    if shown:
        document[what] = {name: nested(fields) for name, fields in shown.items()}
    if config["flavour"] == "pbs23":
        return json.dumps(document, indent=4, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(document, indent="\t", separators=(",", ":\t"), ensure_ascii=False).replace(":\t{", ":\t{") + "\n"


def nested(fields):
    result = {}
    for key, value in fields.items():
        group, dot, name = key.partition(".")
        if dot:
            result.setdefault(group, {})[name] = value
        else:
            result[key] = value
    return result
