"""Keras 3 with its autolog; KERAS_BACKEND says on what. The last line printed is JSON: each run by its name."""
import json
import os
import sys

import keras
import mlflow
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

keras.utils.set_random_seed(0)
mlflow.keras.autolog(log_models=False)


def data(load):
    x, y = load(return_X_y=True)
    return train_test_split((x / x.max(axis=0).clip(1)).astype("float32"), y, test_size=0.3, random_state=0)


def network(outputs, activation, features):
    return keras.Sequential([keras.Input([features]), keras.layers.Dense(32, "relu"), keras.layers.Dense(outputs, activation)])


def accuracy():
    """Keras's own word for it; evaluate is not autolog's business."""
    X_train, X_test, y_train, y_test = data(load_digits)
    model = network(10, "softmax", 64)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with mlflow.start_run() as run:
        model.fit(X_train, y_train, epochs=5, validation_split=0.2, verbose=0)
        print("evaluate on the test data", model.evaluate(X_test, y_test, verbose=0, return_dict=True))
    return run


def metrics():
    """Metric objects, whose names say what they compare; the second accuracy is another quantity."""
    X_train, X_test, y_train, y_test = data(load_digits)
    model = network(10, "softmax", 64)
    model.compile("adam", "sparse_categorical_crossentropy",
                  metrics=[keras.metrics.SparseCategoricalAccuracy(), keras.metrics.SparseTopKCategoricalAccuracy(3)])
    with mlflow.start_run() as run:
        model.fit(X_train, y_train, epochs=5, validation_data=(X_test, y_test), verbose=0)
    return run


def binary():
    """The test accuracy logged by hand."""
    X_train, X_test, y_train, y_test = data(load_breast_cancer)
    model = network(1, "sigmoid", 30)
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.BinaryAccuracy()])
    with mlflow.start_run() as run:
        model.fit(X_train, y_train, epochs=5, validation_split=0.2, verbose=0)
        mlflow.log_metric("test_accuracy", model.evaluate(X_test, y_test, verbose=0, return_dict=True)["binary_accuracy"])
    return run


assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
print(json.dumps({name: globals()[name]().info.run_id for name in sys.argv[1:]}))
