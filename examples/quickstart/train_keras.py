"""Keras 3, here on JAX: handwritten digits, logged by MLflow's autolog and one line by hand."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import mlflow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

X_train, X_test, y_train, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
keras.utils.set_random_seed(0)
mlflow.keras.autolog(log_models=False)

with mlflow.start_run(run_name="Keras") as run:
    model = keras.Sequential([keras.Input([64]), keras.layers.Rescaling(1 / 16), keras.layers.Dense(64, "relu"), keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X_train, y_train, epochs=20, validation_split=0.1, verbose=0)
    mlflow.log_metric("test_accuracy", model.evaluate(X_test, y_test, verbose=0, return_dict=True)["accuracy"])

for name, value in sorted(mlflow.get_run(run.info.run_id).data.metrics.items()):
    print(f"{name:34} {value:.4g}")
