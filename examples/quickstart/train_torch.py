"""PyTorch: handwritten digits in a loop of one's own, logged by hand."""

import mlflow
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = (torch.tensor(part.tolist()) for part in train_test_split(X / 16, y, random_state=0))
torch.manual_seed(0)

with mlflow.start_run(run_name="PyTorch") as run:
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for epoch in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(X_train), y_train)
        loss.backward()
        optimizer.step()
        if epoch % 10 == 9:
            mlflow.log_metric("train_loss", loss.item(), step=epoch)
    mlflow.log_metric("test_accuracy", (model(X_test).argmax(1) == y_test).float().mean().item())

for name, value in sorted(mlflow.get_run(run.info.run_id).data.metrics.items()):
    print(f"{name:34} {value:.4g}")
