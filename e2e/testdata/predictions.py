"""Clients that train and predict, by name. Only MLFLOW_TRACKING_URI says that there is a proxy. The last line printed is JSON."""
import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import mlflow
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

experiment, scenario, args = sys.argv[1], sys.argv[2], sys.argv[3:]
mlflow.set_experiment(experiment)
client = mlflow.MlflowClient()


def burn(seconds):
    """Uses so much CPU time, however long it takes."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(i * i for i in range(2000))


def data(rows):
    x = np.random.default_rng(0).normal(size=(rows, 20))
    return x, x[:, 0] + x[:, 1] > 0


def sklearn():
    x, y = data(2000)
    many, wanted = data(10_000)
    with mlflow.start_run() as run:
        model = RandomForestClassifier(150).fit(x, y)
        with mlflow.start_run(nested=True) as alone:
            client.set_tag(run.info.run_id, "emissions.phase", "inference")
            for _ in range(5):
                found = model.predict(many)
            client.set_tag(run.info.run_id, "emissions.phase", "training")
        mlflow.set_tag("emissions.inferences", 10_000)
        mlflow.log_metric("test_accuracy", float((found == wanted).mean()))
    return {"run": run.info.run_id, "alone": alone.info.run_id}


def after_the_end():
    with mlflow.start_run() as run:
        burn(1)
    run_id = run.info.run_id
    trained = client.get_run(run_id).data.metrics
    with mlflow.start_run() as another:
        burn(0.1)
    client.log_metric(run_id, "accuracy_on_test_data", 0.75)
    client.set_tag(run_id, "emissions.phase", "inference")
    burn(0.5)
    client.set_tag(run_id, "emissions.inferences", 500)
    other = None
    if args[0] == "training":
        client.set_tag(run_id, "emissions.phase", "training")
        burn(0.5)
    elif args[0] == "another run":
        with mlflow.start_run() as another:
            burn(0.5)
        other = another.info.run_id
    elif args[0] == "another run's predictions":
        other = another.info.run_id
        client.set_tag(other, "emissions.phase", "inference")
        burn(0.5)
    return {"run": run_id, "trained": trained, "other": other}


def ten():
    x, y = data(500)
    with mlflow.start_run() as run:
        began = time.process_time()
        model = RandomForestClassifier(20).fit(x, y)
        burn(2)
        asking = time.process_time()
        mlflow.set_tag("emissions.phase", "inference")
        predicting = time.process_time()
        model.predict(x[:10])
        predicted = time.process_time() - predicting
        mlflow.set_tag("emissions.phase", "training")
        asked = time.process_time() - asking
        mlflow.set_tag("emissions.inferences", 10)
        burn(0.5)
        whole = time.process_time() - began
    return {"run": run.info.run_id, "least_cpu_s": predicted, "most_cpu_s": asked, "all_cpu_s": whole}


def evaluates_anothers():
    import pandas as pd

    x, y = data(200)
    with mlflow.start_run() as training:
        model = LogisticRegression().fit(x, y)
        logged = mlflow.sklearn.log_model(model, name="model")
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(20)]).assign(y=y)
    with mlflow.start_run() as evaluation:
        mlflow.models.evaluate(logged.model_uri, frame, targets="y", model_type="classifier", evaluator_config={"log_explainer": False})
    return {"run": training.info.run_id, "evaluation": evaluation.info.run_id}


print(json.dumps(globals()[scenario]()))
