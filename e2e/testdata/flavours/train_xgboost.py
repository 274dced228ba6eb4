"""XGBoost with its autolog, by both of its interfaces. The last line printed is JSON: each run by its name."""
import json
import sys

import mlflow
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

mlflow.xgboost.autolog(log_models=False)


def data(load):
    x, y = load(return_X_y=True)
    return train_test_split(x, y, test_size=0.3, random_state=0)


def multiclass():
    """scikit-learn's interface; the last of eval_set is what early stopping looks at."""
    X_train, X_test, y_train, y_test = data(load_digits)
    model = xgboost.XGBClassifier(n_estimators=12, max_depth=3, eval_metric=["mlogloss", "merror"], early_stopping_rounds=3)
    with mlflow.start_run() as run:
        model.fit(X_train, y_train, eval_set=[(X_train, y_train), (X_test, y_test)])
    return run


def binary():
    """The native interface, with names of the user's for the data."""
    X_train, X_test, y_train, y_test = data(load_breast_cancer)
    train, test = xgboost.DMatrix(X_train, y_train), xgboost.DMatrix(X_test, y_test)
    params = {"objective": "binary:logistic", "eval_metric": ["logloss", "error", "error@0.7"], "max_depth": 2}
    with mlflow.start_run() as run:
        xgboost.train(params, train, num_boost_round=20, evals=[(train, "train"), (test, "test")])
    return run


def regression():
    """Keys that end in error, and are no share of wrong answers."""
    X_train, X_test, y_train, y_test = data(load_diabetes)

    def error(predicted, matrix):
        return "error", float(abs(predicted - matrix.get_label()).mean() / 1000)  # below 1, as a rate would be

    train, test = xgboost.DMatrix(X_train, y_train), xgboost.DMatrix(X_test, y_test)
    with mlflow.start_run() as run:
        xgboost.train({"max_depth": 2, "objective": "reg:squarederror"}, train, num_boost_round=30,
                      evals=[(train, "train"), (test, "validation")], custom_metric=error)
    return run


print(json.dumps({name: globals()[name]().info.run_id for name in sys.argv[1:]}))
