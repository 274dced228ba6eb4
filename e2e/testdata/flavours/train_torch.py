"""PyTorch: a plain loop, and Lightning with mlflow.pytorch.autolog. The last line printed is JSON: each run by its name."""
import json
import sys

import lightning
import mlflow
import torch
import torchmetrics
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)
X, y = (torch.tensor(a) for a in load_digits(return_X_y=True))
X_train, X_test, y_train, y_test = train_test_split(X.float() / 16, y, test_size=0.3, random_state=0)


def network():
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def loop():
    """Nothing is logged but by hand."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    with mlflow.start_run() as run:
        for epoch in range(20):
            optimizer.zero_grad()
            output = model(X_train)
            loss = torch.nn.functional.cross_entropy(output, y_train)
            loss.backward()
            optimizer.step()
            mlflow.log_metrics({"train_loss": loss.item(), "train_acc": (output.argmax(1) == y_train).float().mean().item()}, step=epoch)
            mlflow.log_metric("val_acc", (model(X_test[:100]).argmax(1) == y_test[:100]).float().mean().item(), step=epoch)
        mlflow.log_metric("test_acc", (model(X_test[100:]).argmax(1) == y_test[100:]).float().mean().item())
    return run


class Module(lightning.LightningModule):
    """log_dict of a MetricCollection logs a metric under its class's name."""

    def __init__(self, collection=False):
        super().__init__()
        self.network = network()
        self.accuracy = torch.nn.ModuleDict()
        for stage in ("train", "val", "test"):
            one = torchmetrics.classification.MulticlassAccuracy(10, average="micro")
            self.accuracy[stage + "_"] = torchmetrics.MetricCollection([one], prefix=stage + "_") if collection else one
        self.collection = collection

    def step(self, batch, stage):
        x, y = batch
        output = self.network(x)
        metric = self.accuracy[stage + "_"]
        metric.update(output, y)
        if self.collection:
            self.log_dict(metric, on_step=False, on_epoch=True)
        else:
            self.log(stage + "_acc", metric, on_step=False, on_epoch=True)
        loss = torch.nn.functional.cross_entropy(output, y)
        self.log(stage + "_loss", loss)
        return loss

    def training_step(self, batch, _):
        return self.step(batch, "train")

    def validation_step(self, batch, _):
        return self.step(batch, "val")

    def test_step(self, batch, _):
        return self.step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def with_lightning(collection=False):
    mlflow.pytorch.autolog(log_models=False)
    trainer = lightning.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    module = Module(collection)
    loader = lambda x, y: DataLoader(TensorDataset(x, y), batch_size=64)
    with mlflow.start_run() as run:
        trainer.fit(module, loader(X_train, y_train), loader(X_test[:100], y_test[:100]))
        trainer.test(module, loader(X_test[100:], y_test[100:]))
    return run


def with_collection():
    return with_lightning(collection=True)


print(json.dumps({name: globals()[name]().info.run_id for name in sys.argv[1:]}))
