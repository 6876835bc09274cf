"""Parsl's HighThroughputExecutor, without encryption and logging, with prefetch: its fastest setting."""

import os

import loads
from peers import Base, timed

apps = {}


class Peer(Base):
    def start(self, cores):
        super().start(cores)
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        os.chdir(self.folder)
        executor = HighThroughputExecutor(
            label="bench", address="127.0.0.1", max_workers_per_node=cores, prefetch_capacity=100, encrypted=False,
            provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
        )
        parsl.load(Config(
            executors=[executor], strategy="none", initialize_logging=False, run_dir=self.folder, usage_tracking=0,
        ))
        self.nothing = parsl.python_app(nothing)
        self.command = parsl.bash_app(command)

    def stop(self):
        import parsl

        parsl.dfk().cleanup()

    def version(self):
        import parsl

        return f"parsl {parsl.__version__}, HighThroughputExecutor, prefetch 100"

    def one(self, n):
        return [timed(lambda: self.nothing().result()) for _ in range(n)]

    def many(self, app, n):
        return {"seconds": timed(lambda: [future.result() for future in [app() for _ in range(n)]])}

    def flat(self, n):
        return self.many(self.command, n)

    def calls(self, n):
        return self.many(self.nothing, n)

    def graph(self, shape, size):
        graph = loads.graph(shape, *size)

        def run():
            futures = []
            for after in graph:
                futures.append(self.nothing(*[futures[i] for i in after]))
            for future in futures:
                future.result()

        return {"seconds": timed(run), "tasks": len(graph)}


def nothing(*_):
    return None


def command():
    return "true"
