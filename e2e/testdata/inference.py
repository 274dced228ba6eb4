"""Clients that predict, by name. Only MLFLOW_TRACKING_URI says that there is a proxy. The last line printed is JSON."""
import json
import os
import sys
import time
import urllib.request
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


def genai(where):
    from mlflow.genai.scorers import scorer

    @scorer
    def exact(outputs, expectations):
        with mlflow.start_span("judging"):  # which is not the model's
            burn(0.02)
        return outputs == expectations["answer"]

    @mlflow.trace
    def inner(q):
        burn(0.1)
        return q.upper()

    @mlflow.trace
    def predict(q):
        return inner(q)

    data = [{"inputs": {"q": q}, "expectations": {"answer": q.upper()}} for q in "abcdef"]
    if where == "static":
        predict, data = None, [{**d, "outputs": "A"} for d in data]
    if where == "alone":
        return {"run": mlflow.genai.evaluate(data=data, predict_fn=predict, scorers=[exact]).run_id}
    with mlflow.start_run() as run:
        burn(0.5)
        if where == "traced before":
            predict("x")
        mlflow.genai.evaluate(data=data, predict_fn=predict, scorers=[exact])
        burn(0.1)
    return {"run": run.info.run_id}


def traced():
    @mlflow.trace
    def predict(x):
        burn(0.1)
        if x == 3:
            raise ValueError("as intended")
        return x

    with mlflow.start_run() as run:
        burn(0.5)
        for x in range(5):
            try:
                predict(x)
            except ValueError:
                pass
    predict(7)  # in no run
    mlflow.flush_trace_async_logging()
    return {"run": run.info.run_id}


def otlp(encoding):
    import gzip

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with mlflow.start_run() as run:
        burn(0.5)
        request, text = ExportTraceServiceRequest(), []
        spans = request.resource_spans.add().scope_spans.add().spans
        for _ in range(4):
            start = time.time_ns()
            burn(0.1)
            end, trace, root, child = time.time_ns(), os.urandom(16), os.urandom(8), os.urandom(8)
            spans.add(trace_id=trace, span_id=root, name="predict", start_time_unix_nano=start, end_time_unix_nano=end)
            spans.add(trace_id=trace, span_id=child, parent_span_id=root, name="inner", start_time_unix_nano=start, end_time_unix_nano=end)
            text += [{"traceId": trace.hex(), "spanId": root.hex(), "name": "predict", "startTimeUnixNano": str(start), "endTimeUnixNano": str(end)},
                     {"traceId": trace.hex(), "spanId": child.hex(), "parentSpanId": root.hex(), "name": "inner", "startTimeUnixNano": str(start),
                      "endTimeUnixNano": str(end)}]
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": run.info.experiment_id, "x-mlflow-run-id": run.info.run_id}
        body = request.SerializeToString()
        if encoding == "json":
            headers["Content-Type"] = "application/json"
            body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": text}]}]}).encode()
        if encoding == "gzip":
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body)
        for _ in range(2):  # the second time as a retry
            with urllib.request.urlopen(urllib.request.Request(os.environ["MLFLOW_TRACKING_URI"] + "/v1/traces", body, headers)) as answer:
                assert answer.status == 200
        burn(0.1)
    return {"run": run.info.run_id}


def frame(rows, **columns):
    import numpy as np
    import pandas as pd

    x = np.arange(rows) % 2
    return pd.DataFrame({"x": x, "y": x, **{k: x for k in columns}})


def evaluations(traces="no"):
    """Two of a function, then one of a logged model, of which MLflow 3 logs the metrics twice."""
    from sklearn.linear_model import LogisticRegression

    def predict(d):
        burn(0.3)
        return d["x"].to_numpy()

    if traces == "traced":
        predict = mlflow.trace(predict)
    config = {"log_explainer": False, "log_model_explainability": False}
    with mlflow.start_run() as run:
        burn(0.5)
        mlflow.models.evaluate(predict, frame(50), targets="y", model_type="classifier", evaluator_config={**config, "metric_prefix": "val_"})
        mlflow.models.evaluate(predict, frame(30), targets="y", model_type="regressor", evaluator_config={**config, "metric_prefix": "test_"})
        model = LogisticRegression().fit(frame(20)[["x"]], frame(20)["y"])
        uri = mlflow.sklearn.log_model(model, **{"name" if mlflow.__version__ > "3" else "artifact_path": "m"}).model_uri
        mlflow.models.evaluate(uri, frame(20), targets="y", model_type="classifier", evaluator_config=config)
        burn(0.1)
    return {"run": run.info.run_id}


def predicted_before():
    """Nothing is predicted here: the predictions stand in the data."""
    with mlflow.start_run() as run:
        burn(0.3)
        mlflow.models.evaluate(data=frame(50, predictions=1), targets="y", predictions="predictions", model_type="classifier",
                               evaluator_config={"log_explainer": False, "log_model_explainability": False})
    return {"run": run.info.run_id}


def model():
    """Trains and logs a model, to be served."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    x = np.random.default_rng(0).normal(size=(200, 2))
    with mlflow.start_run() as run:
        burn(0.3)
        fitted = RandomForestRegressor(n_estimators=50).fit(x, x @ [1, 2] + 3)
        mlflow.log_metric("test_accuracy", 0.8)
        info = mlflow.sklearn.log_model(fitted, name="model", pip_requirements=[], serialization_format="cloudpickle")
    return {"run": run.info.run_id, "uri": info.model_uri}


print(json.dumps(globals()[scenario](*args)))
