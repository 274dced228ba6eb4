package proxy

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"mlflow-emissions-proxy/mlflow"
)

func TestAccuracy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		metrics map[string]float64
		wanted  []string
		key     string // "" for none
		percent float64
	}{
		{"test before all others", map[string]float64{"accuracy": .1, "val_accuracy": .2, "training_accuracy_score": .3, "accuracy_score": .4, "test_accuracy": .5}, nil, "test_accuracy", 50},
		{"as mlflow-emissions-sdk logs it", map[string]float64{"accuracy_on_test_data": .5, "val_accuracy": .9}, nil, "accuracy_on_test_data", 50},
		{"evaluation before validation", map[string]float64{"accuracy_score": .4, "val_accuracy": .2, "accuracy": .1}, nil, "accuracy_score", 40},
		{"Hugging Face", map[string]float64{"eval_accuracy": .4, "train_acc": .9}, nil, "eval_accuracy", 40},
		{"evaluation with a prefix", map[string]float64{"test_accuracy_score": .6, "accuracy_score": .5}, nil, "test_accuracy_score", 60},
		{"validation before bare", map[string]float64{"val_acc": .2, "acc": .1}, nil, "val_acc", 20},
		{"bare before training", map[string]float64{"accuracy": .1, "training_accuracy_score": .9}, nil, "accuracy", 10},
		{"training at last", map[string]float64{"training_accuracy_score": .9, "training_score": .8}, nil, "training_accuracy_score", 90},
		{"a percentage already", map[string]float64{"test_acc": 97.5}, nil, "test_acc", 97.5},
		{"one is all", map[string]float64{"test_acc": 1}, nil, "test_acc", 100},
		{"the plainest of equals", map[string]float64{"test_binary_accuracy": .2, "test_accuracy": .3}, nil, "test_accuracy", 30},
		{"zero is none", map[string]float64{"test_accuracy": 0}, nil, "", 0},
		{"negative is none", map[string]float64{"test_accuracy": -1}, nil, "", 0},
		{"beyond a percentage is none", map[string]float64{"test_accuracy": 101}, nil, "", 0},
		{"not a number is none", map[string]float64{"test_accuracy": math.NaN()}, nil, "", 0},
		{"another meaning is none", map[string]float64{"balanced_accuracy_score": .5, "top_5_accuracy": .9, "r2_score": .5, "accuracy_loss": .3}, nil, "", 0},
		{"our own ratio is none", map[string]float64{"accuracy_per_emission": 50}, nil, "", 0},
		{"the user's word", map[string]float64{"test_accuracy": .5, "r2_score": .7}, []string{"missing", "r2_score"}, "r2_score", 70},
		{"the user's word is not overruled", map[string]float64{"test_accuracy": .5}, []string{"f1"}, "", 0},
	} {
		metrics := map[string]mlflow.Metric{}
		for k, v := range c.metrics {
			metrics[k] = mlflow.Metric{Key: k, Value: v}
		}
		percent, key, ok := accuracy(metrics, c.wanted)
		assert.Equal(t, c.key != "", ok, c.name)
		assert.Equal(t, c.key, key, c.name)
		assert.InDelta(t, c.percent, percent, 1e-9, c.name)
	}
}
