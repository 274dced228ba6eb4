"""What a notebook server does: it starts two kernels as its children, each of which opens a run. The first works."""
import json
import sys

from jupyter_client import KernelManager

START = f"""
import mlflow, time
mlflow.set_experiment({sys.argv[1]!r})
run = mlflow.start_run()
print("RUN=" + run.info.run_id)
"""
WORK = """
end = time.process_time() + 2
while time.process_time() < end:
    sum(i * i for i in range(2000))
"""


def execute(client, code):
    printed = []
    client.execute_interactive(code, timeout=120, output_hook=lambda m: printed.append(m["content"].get("text", "")))
    return "".join(printed)


kernels = []
for _ in range(2):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    kernels.append((manager, client))
runs = [execute(client, START).split("RUN=")[1].split()[0] for _, client in kernels]
execute(kernels[0][1], WORK)
for manager, client in kernels:
    execute(client, "mlflow.end_run()")
    client.stop_channels()
    manager.shutdown_kernel(now=True)
print(json.dumps({"runs": runs}))
