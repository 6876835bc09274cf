"""A client of a dcluster server over its unix socket, for drivers: docs/protocol.md in Python.

Needs msgpack. One connection; requests may be sent many at a time.
"""

import os
import socket
import struct
import uuid

import msgpack

PROTOCOL = 2
UNANSWERED_MAX = 1000
FRAME_REQUESTS = 250


class Client:
    """A connection to the server of the cluster in `folder`."""

    def __init__(self, folder):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.path.join(folder, "sock"))
        self.last = 0
        self.unread = []
        self._send([{"Hello": {"protocol": PROTOCOL, "version": "bench"}}])
        answer = self._receive()
        if "Welcome" not in answer:
            raise RuntimeError(answer["Reply"]["reply"]["Error"]["what"])

    def close(self):
        self.socket.close()

    def _send(self, messages):
        body = msgpack.packb(messages)
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def _receive(self):
        if not self.unread:
            (length,) = struct.unpack(">I", self._bytes(4))
            self.unread = msgpack.unpackb(self._bytes(length))[::-1]
        return self.unread.pop()

    def _bytes(self, count):
        got = bytearray()
        while len(got) < count:
            part = self.socket.recv(min(1 << 20, count - len(got)))
            if not part:
                raise ConnectionError("the server closed the connection")
            got += part
        return bytes(got)

    def ask_all(self, requests):
        """Sends all requests without waiting for each; returns their replies in the order of the requests."""
        first = self.last + 1
        numbers = range(first, first + len(requests))
        self.last += len(requests)
        replies, sent = {}, 0
        while len(replies) < len(requests):
            # The server reads no more while so many are unanswered, and we must read to be answered.
            if sent < len(requests) and sent - len(replies) <= UNANSWERED_MAX - FRAME_REQUESTS:
                part = zip(numbers[sent : sent + FRAME_REQUESTS], requests[sent : sent + FRAME_REQUESTS])
                self._send([{"Request": {"id": number, "request": request}} for number, request in part])
                sent = min(sent + FRAME_REQUESTS, len(requests))
                continue
            reply = self._receive()["Reply"]
            if isinstance(reply["reply"], dict) and "Error" in reply["reply"]:
                raise RuntimeError(reply["reply"]["Error"]["what"])
            replies[reply["id"]] = reply["reply"]
        return [replies[number] for number in numbers]

    def ask(self, request):
        """Sends one request; returns its reply."""
        return self.ask_all([request])[0]

    def status(self):
        """Returns the status; the server's count of its longest turn begins anew."""
        return self.ask("Status")["Status"]

    def wait(self):
        """Waits until all tasks have ended; returns their counts."""
        while True:
            counts = self.ask({"Wait": {"tasks": [], "timeout": 60_000}})["Progress"]["counts"]
            if counts["waiting"] + counts["ready"] + counts["running"] == 0:
                return counts


def submission(argv, count=1, cores=1, priority=0, after=(), quiet=True):
    """A `Submit` request: one task, or an array of `count`, after the arrays with the ids `after`.

    `quiet` sends what the task prints to /dev/null; else it is kept in files, as by default.
    """
    null = {"File": b"/dev/null"}
    body = {
        "command": {"Argv": [word.encode() for word in argv]},
        "cwd": b"/",
        "stdout": null if quiet else "Default",
        "stderr": null if quiet else "Default",
        "needs": {"variants": [{"cores": cores}]},
        "indexes": "Single" if count == 1 else {"Range": {"first": 1, "count": count, "step": 1}},
        "umask": 0o022,
    }
    after = [{"Array": array} for array in after]
    return {"Submit": {"key": uuid.uuid4().hex, "submission": {"body": body, "priority": priority, "after": after}}}
