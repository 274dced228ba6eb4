"""scikit-learn with its autolog. The last line printed is JSON: each run by its name."""
import json
import sys

import mlflow
import sklearn.metrics
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split

mlflow.sklearn.autolog(log_models=False)


def data(load):
    x, y = load(return_X_y=True)
    return train_test_split(x, y, test_size=0.3, random_state=0)


def score():
    """What most people write: fit, then score on the rest of the data."""
    X_train, X_test, y_train, y_test = data(load_digits)
    with mlflow.start_run() as run:
        model = LogisticRegression(max_iter=300)
        model.fit(X_train, y_train)
        print("score on the test data", model.score(X_test, y_test))
    return run


def metric():
    """A function of sklearn.metrics, which autolog watches where it is called by its module."""
    X_train, X_test, y_train, y_test = data(load_digits)
    with mlflow.start_run() as run:
        model = LogisticRegression(max_iter=300)
        model.fit(X_train, y_train)
        predicted = model.predict(X_test)
        print("accuracy_score of the test data", sklearn.metrics.accuracy_score(y_test, predicted))
    return run


def own():
    """The test score logged by hand, after fit."""
    X_train, X_test, y_train, y_test = data(load_digits)
    with mlflow.start_run() as run:
        model = LogisticRegression(max_iter=300)
        model.fit(X_train, y_train)
        mlflow.log_metric("test_accuracy", (model.predict(X_test) == y_test).mean())
    return run


def search():
    """A search by another score than accuracy: its score on the test data is none."""
    X_train, X_test, y_train, y_test = data(load_digits)
    with mlflow.start_run() as run:
        model = GridSearchCV(LogisticRegression(max_iter=100), {"C": [1e-4, 1e-3]}, cv=2, scoring="roc_auc_ovr")
        model.fit(X_train, y_train)
        print("score on the test data", model.score(X_test, y_test))
    return run


def managed():
    """No run of the script's own: fit opens and ends one, and the score comes after."""
    X_train, X_test, y_train, y_test = data(load_digits)
    model = LogisticRegression(max_iter=300)
    model.fit(X_train, y_train)
    print("score on the test data", model.score(X_test, y_test))
    return mlflow.last_active_run()


def regression():
    X_train, X_test, y_train, y_test = data(load_diabetes)
    with mlflow.start_run() as run:
        model = LinearRegression()
        for _ in range(50):
            model.fit(X_train, y_train)
        print("score on the test data", model.score(X_test, y_test))
    return run


print(json.dumps({name: globals()[name]().info.run_id for name in sys.argv[1:]}))
