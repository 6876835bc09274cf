#!/usr/bin/env bash
# From a pile of NetCDF files, one per month, to a pile of anomalies and a picture.
#
#   pipeline.sh PILE_FOLDER OUTPUT_FOLDER
#
# Runs on this machine. On a Slurm cluster: DCLUSTER_BACKEND=slurm pipeline.sh ...
# Needs dcluster and, for python3, the packages in requirements.txt. Copy it and change it.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
mkdir -p "$2"
pile=$(realpath "$1") out=$(realpath "$2")
cd "$(dirname "$0")"                # tasks start in this folder: they find the Python scripts
python=$(command -v python3)        # the python3 you have now is the one the tasks get
mkdir -p "$out/climatology" "$out/anomaly"

# Start a cluster of two jobs with one core each, unless one is up that is not ours to take down.
# Whatever happens after that, an error or Ctrl-C included, take it down again.
export DCLUSTER_BACKEND=${DCLUSTER_BACKEND:-local}
if dcluster status >/dev/null 2>&1; then
    echo 'A cluster is up already. Take it down first: dcluster down' >&2
    exit 1
fi
trap 'dcluster down' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
dcluster up --cores 1 --memory 1GB --jobs 2 --wait 1

# 1. The mean of each calendar month over all years: 12 tasks, {} is the month.
dcluster map "'$python' climatology.py {} '$pile' '$out/climatology/'{}.nc" ::: {01..12}

# 2. One anomaly for each file of the pile: {} is the file, {/} its name without the folder.
dcluster map "'$python' anomaly.py {} '$out/climatology' '$out/anomaly/'{/}" ::: "$pile"/*.nc

# 3. One picture of all anomalies: a single task.
dcluster submit --name plot --wait -- "$python" plot.py "$out/anomaly" "$out/anomaly.png"

# What the cluster used: jobs, tasks, wall and CPU time.
dcluster status
