"""Sweeps and fan-outs: one run around many, by the ways in which people make them. The last line printed is JSON."""
import json
import logging
import multiprocessing
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import mlflow

experiment, scenario, args = sys.argv[1], sys.argv[2], sys.argv[3:]


def burn(seconds):
    """Uses so much CPU time of this thread, however long it takes."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(i * i for i in range(2000))


def data(rows=600):
    from sklearn.datasets import make_classification

    return make_classification(rows, 20, random_state=0)


def optuna():
    """A run per trial, in as many threads as the argument says."""
    import optuna
    from sklearn.linear_model import SGDClassifier

    optuna.logging.set_verbosity(logging.ERROR)
    x, y = data()

    def objective(trial):
        # A thread does not know of the run that another began, so the parent is named, as MLflow's documentation does.
        with mlflow.start_run(nested=True, parent_run_id=parent.info.run_id) as child:
            burn(0.3)
            model = SGDClassifier(alpha=trial.suggest_float("alpha", 1e-5, 1e-1, log=True), random_state=0).fit(x[:400], y[:400])
            accuracy = model.score(x[400:], y[400:])
            mlflow.log_metric("test_accuracy", accuracy)
            children.append(child.info.run_id)
        return accuracy

    children = []
    with mlflow.start_run() as parent:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
        study.optimize(objective, n_trials=4, n_jobs=int(args[0]))
        burn(0.2)
        mlflow.log_metric("best_score", study.best_value)
    return {"run": parent.info.run_id, "children": children}


def grid_search():
    """Autologging makes the runs of the candidates when the search is over."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import GridSearchCV

    mlflow.sklearn.autolog(log_models=False)
    x, y = data()
    with mlflow.start_run() as parent:
        GridSearchCV(SGDClassifier(random_state=0), {"alpha": [1e-4, 1e-3, 1e-2]}, cv=3).fit(x, y)
        burn(0.5)
    found = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list")
    return {"run": parent.info.run_id, "children": [r.info.run_id for r in found]}


def fold(parent, i):
    """A fold, in a process of joblib's, with a run of its own."""
    mlflow.set_experiment(experiment)
    with mlflow.start_run(nested=True, parent_run_id=parent) as child:
        burn(0.5)
        mlflow.log_metric("fold", i)
    return child.info.run_id, os.getpid()


def cross_validation():
    import joblib

    with mlflow.start_run() as parent:
        folds = joblib.Parallel(n_jobs=2)(joblib.delayed(fold)(parent.info.run_id, i) for i in range(4))
        mlflow.log_metric("test_accuracy", 0.5)
    return {"run": parent.info.run_id, "children": [c for c, _ in folds], "processes": len({p for _, p in folds} - {os.getpid()})}


def fan_out():
    """A driver whose workers are processes of its own."""
    with mlflow.start_run() as parent:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            children = pool.map(work, [parent.info.run_id] * 2, chunksize=1)
    return {"run": parent.info.run_id, "children": children}


def work(parent):
    mlflow.set_experiment(experiment)
    with mlflow.start_run(tags={"mlflow.parentRunId": parent}) as child:
        burn(0.8)
        mlflow.log_metric("test_accuracy", 0.7)
    return child.info.run_id


def driver():
    """A driver whose workers were started by somebody else: it only waits."""
    with mlflow.start_run() as parent:
        print(json.dumps({"run": parent.info.run_id}), flush=True)
        sys.stdin.read()
    return {"run": parent.info.run_id}


def worker():
    return {"run": work(args[0])}


if __name__ == "__main__":
    mlflow.set_experiment(experiment)
    print(json.dumps(globals()[scenario]()))
