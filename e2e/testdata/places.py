"""Trains a random forest on pictures of digits, as the run whose grams are drawn for twelve places."""
import json
import sys

import mlflow
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

mlflow.set_experiment(sys.argv[1])
images, digits = load_digits(return_X_y=True)
train, test, train_digits, test_digits = train_test_split(images, digits, random_state=0)
with mlflow.start_run(run_name="random forest on digits") as run:
    model = RandomForestClassifier(n_estimators=int(sys.argv[2]), random_state=0).fit(train, train_digits)
    mlflow.log_metric("test_accuracy", model.score(test, test_digits))
print(json.dumps({"run": run.info.run_id}))
