"""Hugging Face's Trainer, which brings its own callback for MLflow. The last line printed is JSON: each run by its name."""
import json
import sys
import tempfile

import mlflow
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(0)


class Sentences(torch.utils.data.Dataset):
    """Of token 7 there are more than of token 8, or fewer."""

    def __init__(self, count, seed):
        self.tokens = torch.randint(7, 9, (count, 15), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, i):
        return {"input_ids": self.tokens[i], "attention_mask": torch.ones_like(self.tokens[i]), "labels": int((self.tokens[i] == 8).sum() > 7)}


def compute_metrics(prediction):
    return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean().item()}


def trainer(folder, **more):
    config = BertConfig(vocab_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2)
    args = TrainingArguments(folder, num_train_epochs=3, per_device_train_batch_size=32, learning_rate=5e-3, eval_strategy="epoch",
                             logging_strategy="epoch", save_strategy="no", report_to="mlflow", use_cpu=True, disable_tqdm=True, **more)
    return Trainer(BertForSequenceClassification(config), args, train_dataset=Sentences(640, 1), eval_dataset=Sentences(100, 2), compute_metrics=compute_metrics)


def evaluation():
    """What the guide shows: an evaluation after each epoch. predict returns test_accuracy and logs it nowhere."""
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
        t = trainer(folder)
        t.train()
        print("predict on the test data", t.predict(Sentences(200, 3)).metrics)
    return run


def prediction():
    """The test accuracy of predict, logged by the trainer."""
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
        t = trainer(folder)
        t.train()
        t.log(t.predict(Sentences(200, 3)).metrics)
    return run


print(json.dumps({name: globals()[name]().info.run_id for name in sys.argv[1:]}))
