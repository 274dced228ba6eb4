"""Trains seven image models, one MLflow run each, with the plain MLflow client; and predicts with each.

    MLFLOW_TRACKING_URI=http://127.0.0.1:5001 python train.py --scale 0.02

All that it knows of emissions are two tags, by which the predictions at a run's end are told from its training.
"""

import argparse
import math
import multiprocessing
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

# Architectures by keras.applications' names, each with the module that has its preprocess_input.
MODELS = {
    "NASNetMobile": "nasnet",
    "MobileNetV2": "mobilenet_v2",
    "DenseNet121": "densenet",
    "EfficientNetV2B1": "efficientnet_v2",
    "ResNet50": "resnet",
    "ResNet101": "resnet",
    "ResNet152": "resnet",
}
TEST_SHARE = 0.2  # of the pictures
LEAST_TEST = 16  # pictures of a class; with fewer in all than about a hundred, an accuracy says nothing
BATCH = 16
PREDICTIONS = 10_000


def arguments():
    parser = argparse.ArgumentParser(description="Train image models through an MLflow tracking server.")
    parser.add_argument("--images", type=Path, metavar="DIR", help="a folder per class; by default 2,527 pictures are made beside this file")
    parser.add_argument("--models", default=",".join(MODELS), help="after commas (%(default)s)")
    parser.add_argument("--weights", choices=["imagenet", "none"], default="none", help="imagenet: downloaded, and only a new last layer is trained (%(default)s)")
    parser.add_argument("--scale", type=float, default=1, help="share of the pictures to train with, and of 10,000 predictions to make (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=96, help="width and height to which pictures are brought (%(default)s)")
    parser.add_argument("--experiment", default="image-models", help="(%(default)s)")
    args = parser.parse_args()
    args.models = args.models.split(",")
    unknown = set(args.models) - set(MODELS)
    if unknown:
        parser.error(f"--models: no {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    if not 0 < args.scale <= 1:
        parser.error(f"--scale: {args.scale} is not allowed, only a number above 0 and up to 1")
    if args.epochs < 1:
        parser.error(f"--epochs: {args.epochs} is not allowed, only a number of at least 1")
    if args.size < 32:
        parser.error(f"--size: {args.size} is not allowed, only a number of at least 32")
    if args.images is not None and not any(args.images.glob("*/*")):
        parser.error(f"--images: {args.images} has no folders with pictures in them")
    if "MLFLOW_TRACKING_URI" not in os.environ:
        parser.error("set MLFLOW_TRACKING_URI to the proxy's address, for example http://127.0.0.1:5001")
    return args


def load(folder, scale, size):
    """Returns training pictures, their labels, test pictures, their labels, and how many classes there are."""
    import numpy as np
    from PIL import Image

    def pixels(file):
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB").resize((size, size)))

    train, test = [], []
    classes = sorted(f for f in folder.iterdir() if f.is_dir())
    for label, inside in enumerate(classes):
        files = sorted(f for f in inside.iterdir() if not f.name.startswith("."))
        np.random.default_rng(label).shuffle(files)
        held = int(len(files) * TEST_SHARE)
        parts = [(test, files[:held], LEAST_TEST), (train, files[held:], math.ceil(BATCH / len(classes)))]
        for chosen, part, least in parts:
            chosen += [(pixels(f), label) for f in part[: max(least, round(len(part) * scale))]]
    if len(train) < BATCH or not test:
        sys.exit(f"{folder}: {len(train)} pictures to train with and {len(test)} to test with are too few; there must be {BATCH} and 1")
    return *map(np.array, zip(*train)), *map(np.array, zip(*test)), len(classes)


def train(name, folder, args):
    """One model, one run."""
    import keras
    import mlflow
    import numpy as np

    keras.utils.set_random_seed(0)
    family = getattr(keras.applications, MODELS[name])
    x_train, y_train, x_test, y_test, classes = load(folder, args.scale, args.size)

    class Batches(keras.utils.PyDataset):
        """Batches that are all of one size, since JAX compiles a model anew for each size."""

        def __init__(self, x, y, order, shuffle=False):
            super().__init__()
            self.x, self.y, self.order, self.shuffle = x, y, order, shuffle

        def __len__(self):
            return len(self.order) // BATCH

        def __getitem__(self, i):
            chosen = self.order[i * BATCH : (i + 1) * BATCH]
            return family.preprocess_input(self.x[chosen].astype("float32")), self.y[chosen]

        def on_epoch_begin(self):
            if self.shuffle:
                np.random.shuffle(self.order)

    def test_batches(at_least):
        """So many test pictures, and as many more as fill the last batch: the first ones again."""
        return Batches(x_test, y_test, np.resize(np.arange(len(x_test)), math.ceil(at_least / BATCH) * BATCH))

    mlflow.set_experiment(args.experiment)
    with mlflow.start_run(run_name=name):
        base = getattr(keras.applications, name)(
            include_top=False, weights=None if args.weights == "none" else args.weights, input_shape=(args.size, args.size, 3), pooling="avg"
        )
        base.trainable = args.weights == "none"
        batches = Batches(x_train, y_train, np.arange(len(x_train)), shuffle=True)
        steps = len(batches) * args.epochs
        for layer in base.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                # It predicts with what it has seen in about the last tenth of the training; the usual 0.99 and more would
                # hold its first values after few batches.
                layer.momentum = min(layer.momentum, max(0.0, 1 - 10 / steps))
        model = keras.Sequential([base, keras.layers.Dense(classes, "softmax")])
        rate = keras.optimizers.schedules.CosineDecay(0.001, steps)
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        mlflow.log_params({
            "model": name, "parameter_count": model.count_params(), "weights": args.weights, "image_size": args.size, "batch_size": BATCH,
            "epochs": args.epochs, "scale": args.scale, "training_images": len(x_train), "test_images": len(x_test), "classes": classes,
        })  # fmt: skip

        began = time.monotonic()

        def log(epoch, logs):
            nonlocal began
            now = time.monotonic()
            mlflow.log_metrics({"train_loss": logs["loss"], "train_accuracy": logs["accuracy"], "epoch_seconds": now - began}, step=epoch)
            began = now

        model.fit(batches, epochs=args.epochs, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=log)])
        labels = model.predict(test_batches(len(x_test)), verbose=0).argmax(axis=1)[: len(x_test)]
        mlflow.log_metric("test_accuracy", (labels == y_test).mean())

        # The first predictions, above, had the model compiled; those that are metered as inference are what serving it costs.
        work = test_batches(PREDICTIONS * args.scale)
        mlflow.set_tag("emissions.phase", "inference")
        model.predict(work, verbose=0)
        mlflow.set_tag("emissions.inferences", len(work.order))


def main():
    args = arguments()
    folder = args.images
    if folder is None:
        folder = Path(__file__).with_name("images")
        if not folder.exists():
            import make_images

            print(f"Making pictures in {folder}", flush=True)
            make_images.make(folder)
    for name in args.models:
        # In a process of its own, so that no run has the memory of those before it.
        process = multiprocessing.get_context("spawn").Process(target=train, args=(name, folder, args))
        process.start()
        process.join()
        if process.exitcode != 0:
            sys.exit(f"{name} failed")


if __name__ == "__main__":
    main()
