"""What runs in a command's own process: faults, and `standin` itself."""

import fcntl
import json
import os
import signal
import socket
import sys
import time

import core


class Fault:
    """What goes wrong with a command: a JSON object in `faults/COMMAND`.

        times    how often (1); -1: until it is taken back
        skip     how many calls go well before (0)
        rc out err   what it answers instead, without having done anything
        done     true: it does what it was asked for, and answers the above instead
        hang     "before" or "after" it was done: it does not end
        delay    seconds before it does anything
        banner   text before its output; banner_err: the same on stderr
        lie      handed to the face: what a listing omits or says, see there
    """

    def __init__(self, path):
        self.found = {}
        try:
            with open(path, "r+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                fault = json.load(file)
                if fault.get("skip", 0) > 0:
                    fault["skip"] -= 1
                elif fault.get("times", 1) != 0:
                    self.found = dict(fault)
                    fault["times"] = fault.get("times", 1) - (fault.get("times", 1) > 0)
                else:
                    return
                file.seek(0)
                file.truncate()
                json.dump(fault, file)
        except FileNotFoundError:
            pass


def with_fault(folder, face, request, ask):
    """Does a command that has a fault."""
    fault = Fault(os.path.join(folder, "faults", request["command"])).found
    module = __import__(face)
    time.sleep(fault.get("delay", 0))
    if fault.get("hang") == "before":
        hang()
    instead = any(key in fault for key in ("rc", "out", "err"))
    answer = [0, "", ""]
    if not instead or fault.get("done") or fault.get("hang") == "after":
        request["lie"] = fault.get("lie")
        try:
            answer = ask(folder, request)
        except OSError:
            answer = module.down(request)
    if fault.get("hang") == "after":
        hang()
    if instead:
        answer = [fault.get("rc", 0), fault.get("out", ""), fault.get("err", "")]
    sys.stdout.write(fault.get("banner", "") + answer[1])
    sys.stderr.write(fault.get("banner_err", "") + answer[2])
    return answer[0]


def hang():
    while True:
        time.sleep(1000)


def control(folder, words, ask):
    """`standin WORDS`."""
    pid_file = os.path.join(folder, "pid")

    def server():
        with open(pid_file, encoding="utf-8") as file:
            return int(file.read())

    match words:
        case ["start"]:
            return start(folder, pid_file)
        case ["stop" | "kill" as how]:
            pid = server()
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGTERM if how == "stop" else signal.SIGKILL)
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.005)
            os.unlink(os.path.join(folder, "sock"))
        case ["hang"]:
            os.kill(server(), signal.SIGSTOP)
        case ["resume"]:
            os.kill(server(), signal.SIGCONT)
        case ["set", key, value]:
            path = os.path.join(folder, "settings.json")
            settings = {}
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    settings = json.load(file)
            settings[key] = json.loads(value)
            core.write(path, json.dumps(settings))
        case ["fault", command, value]:
            os.makedirs(os.path.join(folder, "faults"), exist_ok=True)
            path = os.path.join(folder, "faults", command)
            if value == "null":
                if os.path.exists(path):
                    os.unlink(path)
            else:
                json.loads(value)
                core.write(path, value)
        case ["jobs" | "sweep" as what]:
            code, out, err = ask(folder, {"do": what})
            sys.stdout.write(out)
            sys.stderr.write(err)
            return code
        case ["lose", job]:
            ask(folder, {"do": "lose", "id": job})
        case _:
            sys.stderr.write("standin: see the head of `batch`\n")
            return 2
    return 0


def start(folder, pid_file):
    served = core.Core(folder)
    path = os.path.join(folder, "sock")
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        core.write(pid_file, str(pid))
        return 0
    os.setsid()
    log = os.open(os.path.join(folder, "server.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    served.serve(listener)
    os._exit(0)
