"""A data-parallel training as launchers start it: every rank works, and only the first talks to MLflow.

ranks.py EXPERIMENT FOLDER BUSY: BUSY of the ranks work, each for two seconds of CPU time. Without a launcher's variables
it is a launcher itself, of two ranks, of torchrun's shape.
"""
import json
import os
import subprocess
import sys
import time

experiment, folder, busy = sys.argv[1], sys.argv[2], int(sys.argv[3])
rank = os.environ.get("LOCAL_RANK", os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK"))

if rank is None:
    ranks = [
        subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": str(i)})
        for i in range(2)
    ]
    sys.exit(max(r.wait() for r in ranks))


def work():
    end = time.process_time() + 2
    while int(rank) < busy and time.process_time() < end:
        sum(i * i for i in range(2000))
    open(os.path.join(folder, f"done-{rank}"), "w").close()


def wait_for(name):
    while not os.path.exists(os.path.join(folder, name)):
        time.sleep(0.02)


if rank == "0":
    import mlflow

    mlflow.set_experiment(experiment)
    with mlflow.start_run() as run:
        open(os.path.join(folder, "go"), "w").close()
        work()
        wait_for("done-1")
    print(json.dumps({"run": run.info.run_id}), flush=True)
else:
    wait_for("go")
    work()
