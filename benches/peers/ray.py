"""Ray, tasks on one node without its dashboard."""

import subprocess

import loads
from peers import TRUE, Base, timed


class Peer(Base):
    def start(self, cores):
        super().start(cores)
        import ray

        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, _temp_dir=self.folder + "/r")

        @ray.remote
        def nothing(*_):
            return None

        @ray.remote
        def command():
            subprocess.run([TRUE], check=True)

        self.ray, self.nothing, self.command = ray, nothing, command

    def stop(self):
        self.ray.shutdown()

    def version(self):
        import ray

        return f"ray {ray.__version__}"

    def one(self, n):
        return [timed(lambda: self.ray.get(self.nothing.remote())) for _ in range(n)]

    def many(self, function, n):
        return {"seconds": timed(lambda: self.ray.get([function.remote() for _ in range(n)]))}

    def flat(self, n):
        return self.many(self.command, n)

    def calls(self, n):
        return self.many(self.nothing, n)

    def graph(self, shape, size):
        graph = loads.graph(shape, *size)

        def run():
            results = []
            for after in graph:
                results.append(self.nothing.remote(*[results[i] for i in after]))
            self.ray.get(results)

        return {"seconds": timed(run), "tasks": len(graph)}
