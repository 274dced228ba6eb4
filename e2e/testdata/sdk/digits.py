"""A script for mlflow-emissions-sdk: a classifier of images of digits, its accuracy, and its predictions, in the order that
the SDK asks for. Arguments: experiment, flavour, then which of the SDK's further calls are made, and whether the phase is said."""
import json
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import mlflow
import numpy as np
from mlflow_emissions_sdk.experiment_tracking_training import EmissionsTrackerMlflow
from sklearn.datasets import load_digits

flavor, calls = sys.argv[2], sys.argv[3:]
tracker_info = {
    "tracking_uri": os.environ["MLFLOW_TRACKING_URI"],
    "experiment_name": sys.argv[1],
    "run_name": "digits",
    "flavor": flavor,
}
X, y = load_digits(return_X_y=True)
X = X / 16
x_train, y_train, x_test, y_test = X[:1400], y[:1400], X[1400:], y[1400:]

runner = EmissionsTrackerMlflow()
runner.read_params(tracker_info)
if flavor == "keras":
    import keras

    x_train, x_test = x_train.reshape(-1, 8, 8, 1), x_test.reshape(-1, 8, 8, 1)
    model = keras.Sequential([keras.layers.Conv2D(16, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    ten = x_test[:10].reshape(10, 1, 8, 8, 1)  # the SDK wants batches of one
    runner.start_training_job()
    model.fit(x_train, y_train, epochs=3, verbose=0)
elif flavor == "pytorch":
    import torch

    def tensors(images):
        return torch.tensor(images.reshape(-1, 1, 8, 8).tolist())  # Debian's PyTorch knows no NumPy 2

    images, labels = tensors(x_train), torch.tensor(y_train.tolist())
    x_test = list(zip(tensors(x_test), y_test.tolist()))
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    ten = x_test
    runner.start_training_job()
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
else:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((32,), max_iter=60, random_state=0)
    ten = x_test[:10]
    runner.start_training_job()
    model.fit(x_train, y_train)
runner.end_training_job()
ended = mlflow.get_run(runner.run_id).data.metrics

test = [x_test] if flavor == "pytorch" else [x_test, y_test]
accuracy = runner.evaluate_model_accuracy(model, *test)
if "predictions" in calls:
    runner.emissions_per_10_inferences(model, ten)
count = 0
if "phase" in calls:  # the only lines that are not the SDK's
    client = mlflow.MlflowClient()
    client.set_tag(runner.run_id, "emissions.phase", "inference")
    end = time.process_time() + 1
    while time.process_time() < end:
        count += len(model.predict(x_test))
    client.set_tag(runner.run_id, "emissions.inferences", count)
    client.set_tag(runner.run_id, "emissions.phase", "training")
print(json.dumps({"run": runner.run_id, "accuracy": accuracy, "emissions": runner.emissions * 1000, "ended": ended, "count": count}))
