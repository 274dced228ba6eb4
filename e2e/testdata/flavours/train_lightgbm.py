"""LightGBM with its autolog, by both of its interfaces. The last line printed is JSON: each run by its name."""
import json
import sys

import lightgbm
import mlflow
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

mlflow.lightgbm.autolog(log_models=False)


def data(load):
    x, y = load(return_X_y=True)
    return train_test_split(x, y, test_size=0.3, random_state=0)


def multiclass():
    X_train, X_test, y_train, y_test = data(load_digits)
    model = lightgbm.LGBMClassifier(n_estimators=8, num_leaves=7, verbose=-1)
    with mlflow.start_run() as run:
        model.fit(X_train, y_train, eval_set=[(X_train, y_train), (X_test, y_test)], eval_metric=["multi_logloss", "multi_error"])
    return run


def binary():
    X_train, X_test, y_train, y_test = data(load_breast_cancer)
    train = lightgbm.Dataset(X_train, y_train)
    test = train.create_valid(X_test, y_test)
    params = {"objective": "binary", "metric": ["binary_logloss", "binary_error"], "verbose": -1}
    with mlflow.start_run() as run:
        lightgbm.train(params, train, num_boost_round=20, valid_sets=[train, test])
    return run


print(json.dumps({name: globals()[name]().info.run_id for name in sys.argv[1:]}))
