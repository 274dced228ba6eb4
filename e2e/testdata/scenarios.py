"""What clients do, by name. Only MLFLOW_TRACKING_URI says that there is a proxy. The last line printed is JSON."""
import json
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import mlflow

experiment, scenario, args = sys.argv[1], sys.argv[2], sys.argv[3:]
mlflow.set_experiment(experiment)


def burn(seconds):
    """Uses so much CPU time, however long it takes."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(i * i for i in range(2000))


def plain():
    with mlflow.start_run() as run:
        burn(1)
        mlflow.log_param("p", 1)
        mlflow.log_metric("val_accuracy", 0.7)
        mlflow.log_metric("test_accuracy", 0.8)
    return {"run": run.info.run_id}


def evaluate():
    import numpy as np
    import pandas as pd

    data = pd.DataFrame({"x": np.arange(500) % 2, "y": np.arange(500) % 2})

    def predict(d):
        burn(1)
        return d["x"].to_numpy()

    with mlflow.start_run() as run:
        burn(1)
        mlflow.models.evaluate(predict, data, targets="y", model_type="classifier", evaluator_config={"log_explainer": False})
    return {"run": run.info.run_id}


def autolog():
    from sklearn.linear_model import LogisticRegression
    import numpy as np

    mlflow.sklearn.autolog(log_models=False)
    x = np.random.default_rng(0).normal(size=(4000, 40))
    with mlflow.start_run() as run:
        for _ in range(3):
            LogisticRegression(max_iter=500).fit(x, x[:, 0] + x[:, 1] > 0)
        burn(0.3)
    return {"run": run.info.run_id}


def nested():
    with mlflow.start_run() as parent:
        burn(0.4)
        children = []
        for _ in range(2):
            with mlflow.start_run(nested=True) as child:
                burn(0.4)
            children.append(child.info.run_id)
    return {"run": parent.info.run_id, "children": children}


def fails():
    try:
        with mlflow.start_run() as run:
            burn(0.3)
            raise ValueError("as intended")
    except ValueError:
        pass
    return {"run": run.info.run_id}


def killed():
    client = mlflow.MlflowClient()
    run = client.create_run(client.get_experiment_by_name(experiment).experiment_id)
    burn(0.3)
    client.set_terminated(run.info.run_id, "KILLED")
    return {"run": run.info.run_id}


def resumed():
    with mlflow.start_run() as run:
        burn(0.5)
        mlflow.log_metric("test_accuracy", 0.5)
    first = mlflow.get_run(run.info.run_id).data.metrics
    with mlflow.start_run(run_id=run.info.run_id):
        burn(0.5)
    return {"run": run.info.run_id, "first": first}


def abandoned():
    """A run whose process is killed, and whose only ancestor is init by then."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == parent:
        time.sleep(0.01)
    print(json.dumps({"run": mlflow.start_run().info.run_id}), flush=True)
    os._exit(1)


def takes_up():
    """Another process goes on with a run, and logs nothing until its end."""
    with mlflow.start_run(run_id=args[0]):
        burn(2)
    return {"run": args[0]}


def renamed():
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        burn(0.3)
        client.update_run(run.info.run_id, name="another name")
        middle = mlflow.get_run(run.info.run_id)
        burn(0.3)
    return {"run": run.info.run_id, "status": middle.info.status, "metrics": middle.data.metrics}


def asynchronous():
    mlflow.config.enable_async_logging()
    with mlflow.start_run() as run:
        for i in range(50):
            mlflow.log_metric("loss", 1 / (i + 1), step=i)
        mlflow.log_metric("test_accuracy", 0.9)
        burn(0.3)
    return {"run": run.info.run_id}


def own():
    with mlflow.start_run() as run:
        burn(0.3)
        mlflow.log_metric("emissions_g", 42)
    return {"run": run.info.run_id}


def skip():
    with mlflow.start_run(tags={"emissions.skip": "true"}) as run:
        burn(0.2)
    return {"run": run.info.run_id}


def tags():
    with mlflow.start_run(tags={"emissions.accuracy_metric": "f1"}) as run:
        burn(0.3)
        mlflow.log_metrics({"f1": 0.6, "test_accuracy": 0.9})
        mlflow.set_tag("emissions.phase", "inference")
        burn(1)
        mlflow.set_tag("emissions.phase", "training")
        mlflow.set_tag("emissions.inferences", 250)
    return {"run": run.info.run_id}


def late():
    with mlflow.start_run() as run:
        burn(0.3)
    mlflow.MlflowClient().log_metric(run.info.run_id, "accuracy_on_test_data", 0.5)
    return {"run": run.info.run_id}


def work():
    """So much CPU time: alone, beside a neighbour, or beside its equal."""
    with mlflow.start_run() as run:
        burn(float(args[0]))
    return {"run": run.info.run_id}


def together():
    """The same work as another process, begun at the same moment: neither pays for the other's start."""
    folder, me, all_of_us, seconds = args[0], args[1], int(args[2]), float(args[3])
    open(os.path.join(folder, me), "w").close()
    while len(os.listdir(folder)) < all_of_us:
        time.sleep(0.01)
    with mlflow.start_run() as run:
        burn(seconds)
    return {"run": run.info.run_id}


def create():
    client = mlflow.MlflowClient()
    run = client.create_run(client.get_experiment_by_name(experiment).experiment_id)
    print(json.dumps({"run": run.info.run_id}), flush=True)
    sys.stdin.read()  # the launcher lives until the test has seen enough
    client.set_terminated(run.info.run_id)
    return {"run": run.info.run_id}


def worker():
    client = mlflow.MlflowClient()
    client.log_metric(args[0], "loss", 1.0)
    burn(2)
    client.log_metric(args[0], "test_accuracy", 0.75)
    return {"cpu": time.process_time()}


def logs(run_id, i):
    burn(1)
    mlflow.MlflowClient().log_metric(run_id, f"loss-{i}", 1.0)
    return os.getpid()


def workers():
    """joblib's processes, which log for themselves."""
    import joblib

    with mlflow.start_run() as run:
        pids = joblib.Parallel(n_jobs=2, backend="multiprocessing")(joblib.delayed(logs)(run.info.run_id, i) for i in range(2))
        mlflow.log_metric("test_accuracy", 0.5)
    return {"run": run.info.run_id, "workers": len(set(pids) - {os.getpid()}), "cpu": time.process_time()}


def hold():
    """A run that goes on until the test makes a file."""
    with mlflow.start_run() as run:
        print(json.dumps({"run": run.info.run_id}), flush=True)
        while not os.path.exists(args[0]):
            burn(0.05)
    return {"run": run.info.run_id}


def artifact():
    with mlflow.start_run() as run:
        mlflow.log_artifact(args[0])
    return {"run": run.info.run_id, "uri": run.info.artifact_uri}


print(json.dumps(globals()[scenario]()))
