"""A script for mlflow-emissions-sdk, with all of its calls: a regression on four points, which has no accuracy."""
import json
import os
import sys

import numpy as np
from mlflow_emissions_sdk.experiment_tracking_training import EmissionsTrackerMlflow
from sklearn.linear_model import LinearRegression

tracker_info = {
    "tracking_uri": os.environ["MLFLOW_TRACKING_URI"],
    "experiment_name": sys.argv[1],
    "run_name": "four points",
    "flavor": "sklearn",
}
X = np.array([[1, 1], [1, 2], [2, 2], [2, 3]])
y = X @ np.array([1, 2]) + 3
model = LinearRegression()

runner = EmissionsTrackerMlflow()
runner.read_params(tracker_info)
runner.start_training_job()
model.fit(X, y)
runner.end_training_job()

print(json.dumps({"run": runner.run_id, "prediction": model.predict([[3, 5]])[0]}))
