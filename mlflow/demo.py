"""Trains a few small models and logs them to MLflow. Nothing in here knows that emissions are measured."""
import logging
import os
import sys
import warnings

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
warnings.filterwarnings("ignore")

import mlflow
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

logging.getLogger("mlflow").setLevel(logging.ERROR)
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

mlflow.set_experiment(sys.argv[1])

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0, stratify=y)

# Every picture many times over, so that predicting takes long enough to be measured.
repeated = pd.DataFrame(np.tile(x_test, (40, 1)))
labelled = repeated.assign(label=np.tile(y_test, 40))

models = {
    "logistic-regression": LogisticRegression(max_iter=2000, C=10),
    "random-forest": RandomForestClassifier(n_estimators=400, random_state=0),
    "neural-network": MLPClassifier(hidden_layer_sizes=(256, 128), max_iter=200, random_state=0),
}


def parameters(model):
    """The number of a fitted model's parameters; of a forest, the nodes of its trees."""
    if hasattr(model, "coefs_"):
        return sum(a.size for a in model.coefs_ + model.intercepts_)
    if hasattr(model, "estimators_"):
        return sum(e.tree_.node_count for e in model.estimators_)
    return model.coef_.size + model.intercept_.size


for name, model in models.items():
    print(f"  {name} ...", flush=True)
    with mlflow.start_run(run_name=name):
        model.fit(x_train, y_train)
        mlflow.log_param("n_params", parameters(model))
        mlflow.log_metric("training_accuracy_score", model.score(x_train, y_train))
        mlflow.log_metric("test_accuracy", model.score(x_test, y_test))
        mlflow.models.evaluate(
            lambda data: model.predict(data.to_numpy()),
            labelled,
            targets="label",
            model_type="classifier",
            evaluator_config={"log_explainer": False, "log_model_explainability": False},
        )

# A regression has no accuracy, and so no ratio of it.
print("  linear-regression ...", flush=True)
with mlflow.start_run(run_name="linear-regression"):
    x = np.array([[1, 1], [1, 2], [2, 2], [2, 3]])
    LinearRegression().fit(x, x @ np.array([1, 2]) + 3)
