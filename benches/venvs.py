"""Python environments of the peers: one each, outside of the checkout, made when missing.

They lie in $DCLUSTER_CACHE, by default ${XDG_CACHE_HOME:-~/.cache}/dcluster-bench, and are made again
when the pinned packages change.
"""

import os
import shutil
import subprocess
import sys

PACKAGES = {
    "client": ["msgpack>=1"],
    "plot": ["matplotlib>=3.8"],
    "hyperqueue": ["hyperqueue==0.27.0"],
    "dask": ["distributed==2026.8.0"],
    "jobqueue": ["dask-jobqueue==0.9.0", "distributed==2026.8.0"],
    "parsl": ["parsl==2026.10.26"],
    "ray": ["ray==2.60.0"],
}
LIMIT_SECONDS = 900


def cache():
    """The folder of all environments."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.abspath(os.environ.get("DCLUSTER_CACHE") or os.path.join(base, "dcluster-bench"))


def python(name):
    """Returns the interpreter for a peer, making its environment first; raises OSError with the reason."""
    packages = PACKAGES.get(name)
    if packages is None:
        return sys.executable
    venv = os.path.join(cache(), name)
    interpreter = os.path.join(venv, "bin", "python3")
    stamp = os.path.join(venv, "made-from")
    wanted = "\n".join([sys.version, *packages])
    if os.path.exists(stamp) and open(stamp).read() == wanted:
        return interpreter
    print(f"bench: making the Python environment {venv}", file=sys.stderr)
    shutil.rmtree(venv, ignore_errors=True)
    for words in (
        [sys.executable, "-m", "venv", venv],
        [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
    ):
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise OSError(f"{packages[0]} could not be installed within {LIMIT_SECONDS} s") from None
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise OSError(f"{packages[0]} could not be installed: {' '.join(last)}")
    with open(stamp, "w") as file:
        file.write(wanted)
    return interpreter
