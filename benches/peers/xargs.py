"""`xargs -P`: what starting processes costs, and nothing else."""

import subprocess

from peers import TRUE, Base, timed


def numbers(n):
    return "".join(f"{i}\n" for i in range(1, n + 1)).encode()


class Peer(Base):
    def version(self):
        return subprocess.run(["xargs", "--version"], capture_output=True, text=True).stdout.splitlines()[0]

    def run(self, n):
        subprocess.run(["xargs", f"-P{self.cores}", "-n1", TRUE], input=numbers(n), check=True)

    def one(self, n):
        return [timed(self.run, 1) for _ in range(n)]

    def flat(self, n):
        return {"seconds": timed(self.run, n)}
