"""scikit-learn: handwritten digits. The two tags tell predictions from training; all else is an ordinary run."""

import mlflow
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

X_train, X_test, y_train, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)

with mlflow.start_run(run_name="scikit-learn") as run:
    model = RandomForestClassifier(n_estimators=300, random_state=0).fit(X_train, y_train)
    mlflow.log_metric("test_accuracy", model.score(X_test, y_test))

    mlflow.set_tag("emissions.phase", "inference")
    model.predict(X_test)
    mlflow.set_tag("emissions.inferences", len(X_test))

for name, value in sorted(mlflow.get_run(run.info.run_id).data.metrics.items()):
    print(f"{name:34} {value:.4g}")
