"""The child's side of a session: runs one peer's module and answers calls, one JSON line each.

    driver.py PEER FOLDER

A line `{"call": "flat", "args": {"n": 100}}` calls that method of the peer's class `Peer(folder)`; the
answer is `{"ok": result}`, `{"unsupported": why}` or `{"error": text}`. What libraries print goes to the
log of the session. Started by session.py with the peer's own interpreter.
"""

import importlib
import json
import os
import queue
import sys
import threading
import traceback

import machine
from peers import Unsupported


def read(requests):
    """Reads requests in a thread of its own: when whoever asks is gone, all that was started ends with us."""
    for line in sys.stdin:
        requests.put(json.loads(line))
    machine.end_all(os.environ[machine.MARK])
    os._exit(1)


def main():
    name, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    requests = queue.SimpleQueue()
    threading.Thread(target=read, args=(requests,), daemon=True).start()
    peer = importlib.import_module(f"peers.{name}").Peer(folder)
    while request := requests.get():
        try:
            answer = {"ok": getattr(peer, request["call"])(**request["args"])}
        except Unsupported as why:
            answer = {"unsupported": str(why)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
