"""XGBoost: handwritten digits, logged by MLflow's autolog and one line by hand."""

import mlflow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from xgboost import XGBClassifier

X_train, X_test, y_train, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
mlflow.xgboost.autolog(log_models=False)

with mlflow.start_run(run_name="XGBoost") as run:
    model = XGBClassifier(n_estimators=60, max_depth=4).fit(X_train, y_train)
    mlflow.log_metric("test_accuracy", model.score(X_test, y_test))

for name, value in sorted(mlflow.get_run(run.info.run_id).data.metrics.items()):
    print(f"{name:34} {value:.4g}")
