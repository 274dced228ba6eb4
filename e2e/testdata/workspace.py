"""The Databricks way: MLFLOW_TRACKING_URI=databricks, DATABRICKS_HOST=the proxy, DATABRICKS_TOKEN."""
import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import mlflow

client = mlflow.MlflowClient()
run = client.create_run(client.create_experiment(sys.argv[1]))
end = time.process_time() + 1
while time.process_time() < end:
    pass
client.log_metric(run.info.run_id, "test_accuracy", 0.5)
client.set_terminated(run.info.run_id)
print(json.dumps({"run": run.info.run_id}))
