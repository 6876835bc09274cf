"""GNU parallel, from Debian."""

import os
import shutil
import subprocess

from peers import TRUE, Base, Unsupported, timed
from peers.xargs import numbers


class Peer(Base):
    def start(self, cores):
        super().start(cores)
        if not shutil.which("parallel"):
            raise Unsupported("not installed (apt-get install parallel)")
        self.env = {**os.environ, "PARALLEL_HOME": self.folder}
        open(os.path.join(self.folder, "will-cite"), "w").close()

    def version(self):
        return subprocess.run(["parallel", "--version"], capture_output=True, text=True).stdout.splitlines()[0]

    def run(self, n):
        subprocess.run(["parallel", f"-j{self.cores}", TRUE], input=numbers(n), check=True, env=self.env)

    def one(self, n):
        return [timed(self.run, 1) for _ in range(n)]

    def flat(self, n):
        return {"seconds": timed(self.run, n)}
