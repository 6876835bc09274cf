"""How PBS refuses: exit codes are its error codes modulo 256."""

UNKNOWN, DENIED, BAD_STATE, FINISHED, OVER = 153, 159, 168, 35, 55


class Refused(Exception):
    def __init__(self, code, words):
        super().__init__(words)
        self.code, self.words = code, words


def torque(core):
    return core.config["flavour"] == "torque"


def version(core):
    if torque(core):
        return [0, "", f"Version: {core.config['version']}\nCommit: 0000000\n"]
    return [0, f"pbs_version = {core.config['version']}\n", ""]


def exit_status(job):
    """`Exit_status`, or None for a job that never ran."""
    if job["code"] is None:
        return None
    if job["why"] == "walltime":
        return -29
    if job["why"]:
        return 256 + (job["sent"] or 9)
    return job["code"]
