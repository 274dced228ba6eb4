"""A training script, as far as energy is concerned: it opens a run, or starts a tracker, and burns CPU time as it is told.

Arguments: what meters it ("nothing", CodeCarbon's tracking mode, or the base URL of an MLflow server or proxy), then
modules that it has loaded beforehand. Every line read is a command, every line written its outcome as JSON.
"""
import json
import sys
import time

by, loaded = sys.argv[1], sys.argv[2:]
for name in loaded:
    __import__(name)


def tell(**outcome):
    print(json.dumps(outcome), flush=True)


def post(path, **body):
    import urllib.request

    request = urllib.request.Request(by + "/api/2.0/mlflow/runs/" + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


began, cpu = time.perf_counter(), time.process_time()
if by in ("machine", "process"):
    from codecarbon import EmissionsTracker

    imported = time.perf_counter()
    tracker = EmissionsTracker(tracking_mode=by)
    tracker.start()
    tell(import_s=imported - began, start_s=time.perf_counter() - imported, cpu_s=time.process_time() - cpu)
elif by == "nothing":
    tell()
else:
    run = post("create", experiment_id="0", start_time=int(time.time() * 1000))["run"]["info"]["run_id"]
    tell(run=run)

for line in sys.stdin:
    command, seconds = line.split()
    seconds, began, cpu = float(seconds), time.perf_counter(), time.process_time()
    if command == "burn":  # so much CPU time, however long it takes
        while time.process_time() - cpu < seconds:
            sum(i * i for i in range(2000))
    elif command == "spin":  # for so long, however little CPU time it gets
        while time.perf_counter() - began < seconds:
            sum(i * i for i in range(2000))
    elif command == "sleep":
        time.sleep(seconds)
    elif command == "stop":
        break
    tell(wall_s=time.perf_counter() - began, cpu_s=time.process_time() - cpu)

began = time.perf_counter()
if by in ("machine", "process"):
    tracker.stop()
    stopped = time.perf_counter() - began
    data = tracker.final_emissions_data
    modes = [f"{h._mode}, {h._tdp} W" for h in tracker._hardware if hasattr(h, "_mode")]
    tell(stop_s=stopped, cpu_j=data.cpu_energy * 3.6e6, ram_j=data.ram_energy * 3.6e6, ram_w=data.ram_power, method=", ".join(modes))
elif by != "nothing":
    post("update", run_id=run, status="FINISHED", end_time=int(time.time() * 1000))
    tell(stop_s=time.perf_counter() - began)
