"""The child's side of a session: runs one peer's module and answers calls, one JSON line each.

    driver.py PEER FOLDER

A line `{"call": "flat", "args": {"n": 100}}` calls that method of the peer's class `Peer(folder)`; the
answer is `{"ok": result}`, `{"unsupported": why}` or `{"error": text}`. What libraries print goes to the
log of the session. Started by session.py with the peer's own interpreter.
"""

import importlib
import json
import os
import sys
import traceback

from peers import Unsupported


def main():
    name, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer = importlib.import_module(f"peers.{name}").Peer(folder)
    for line in sys.stdin:
        request = json.loads(line)
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
