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
		{"glued", map[string]float64{"valacc": .2, "testacc": .5, "trainacc": .9}, nil, "testacc", 50},
		{"capitals part words", map[string]float64{"test_MulticlassAccuracy": .5, "val_MulticlassAccuracy": .6, "TrainAccuracy": .7}, nil, "test_MulticlassAccuracy", 50},
		{"Keras", map[string]float64{"sparse_categorical_accuracy": .9, "val_sparse_categorical_accuracy": .8, "val_sparse_top_k_categorical_accuracy": .99, "validation_sparse_categorical_accuracy": .8}, nil, "val_sparse_categorical_accuracy", 80},
		{"slashes", map[string]float64{"train/acc": .9, "eval/accuracy": .8}, nil, "eval/accuracy", 80},
		{"Ultralytics", map[string]float64{"metrics/accuracy_top1": .7, "metrics/accuracy_top5": .9}, nil, "metrics/accuracy_top1", 70},
		{"the best is not the last", map[string]float64{"best_val_accuracy": .9, "val_accuracy": .8}, nil, "val_accuracy", 80},
		{"best alone", map[string]float64{"best_accuracy": .9}, nil, "best_accuracy", 90},
		{"a metric_prefix", map[string]float64{"rf-accuracy_score": .7, "rf-example_count": 500, "accuracy": .1}, nil, "rf-accuracy_score", 70},
		{"a metric_prefix that says which data", map[string]float64{"val_accuracy_score": .7, "val_example_count": 5, "test_accuracy_score": .6, "test_example_count": 5}, nil, "test_accuracy_score", 60},
		{"no metric_prefix", map[string]float64{"rf-accuracy_score": .7, "example_count": 500}, nil, "", 0},
		{"a prefix of another meaning", map[string]float64{"balanced_accuracy_score": .7, "balanced_example_count": 500}, nil, "", 0},
		{"scikit-learn's metrics", map[string]float64{"training_accuracy_score": 1, "accuracy_score_X_test": .9, "accuracy_score_unknown_dataset": .8}, nil, "accuracy_score_X_test", 90},
		{"scikit-learn's metrics of what data nobody knows", map[string]float64{"training_accuracy_score": 1, "accuracy_score_unknown_dataset": .8}, nil, "accuracy_score_unknown_dataset", 80},
		{"scikit-learn's score", map[string]float64{"training_accuracy_score": 1, "training_score": 1, "LogisticRegression_score_X_test": .9}, nil, "LogisticRegression_score_X_test", 90},
		{"scikit-learn's score of what it was fitted to", map[string]float64{"training_accuracy_score": .95, "training_score": .95, "SVC_score_X_train": .95}, nil, "training_accuracy_score", 95},
		{"scikit-learn's score after a regression", map[string]float64{"training_r2_score": .9, "training_score": .9, "LinearRegression_score_X_test": .8}, nil, "", 0},
		{"scikit-learn's score where there was both", map[string]float64{"training_r2_score": .9, "training_accuracy_score": .9, "training_score": .9, "LinearRegression_score_X_test": .8}, nil, "training_accuracy_score", 90},
		{"a search by another score", map[string]float64{"training_accuracy_score": .97, "training_score": .99, "GridSearchCV_score_X_test": .98}, nil, "training_accuracy_score", 97},
		{"a search by another score, of a perfect fit", map[string]float64{"training_accuracy_score": 1, "training_score": 1, "GridSearchCV_score_X_test": .98}, nil, "training_accuracy_score", 100},
		{"a search by accuracy", map[string]float64{"training_accuracy_score": .97, "training_score": .97, "GridSearchCV_score_X_test": .9}, nil, "GridSearchCV_score_X_test", 90},
		{"no score without autolog's", map[string]float64{"LogisticRegression_score_X_test": .9}, nil, "", 0},
		{"classes and slices", map[string]float64{"accuracy_class_3": .9, "accuracy/cat": .8, "cat_accuracy": .7, "test_acc_dog": .9, "accuracy_0": .9, "per_class_accuracy": .9, "test_accuracy_male": .8}, nil, "", 0},
		{"something else about accuracy", map[string]float64{"test_accuracy_std": .1, "baseline_accuracy": .5, "target_accuracy": .9, "accuracy_gain": .1, "top_3_accuracy": .9, "acc_at_5": .9, "macro_accuracy": .8, "token_accuracy": .8, "accuracy_loss": .3, "accelerator": 1}, nil, "", 0},
		{"XGBoost, the last of its sets", map[string]float64{"validation_0-merror": .01, "validation_1-merror": .25, "validation_1-mlogloss": .4}, nil, "validation_1-merror", 75},
		{"ten sets", map[string]float64{"validation_9-merror": .5, "validation_10-merror": .25}, nil, "validation_10-merror", 75},
		{"LightGBM", map[string]float64{"training-multi_error": .01, "valid_0-multi_error": .125}, nil, "valid_0-multi_error", 87.5},
		{"LightGBM, two classes", map[string]float64{"training-binary_error": .25}, nil, "training-binary_error", 75},
		{"accuracy before error", map[string]float64{"valid_0-multi_error": .125, "val_accuracy": .75}, nil, "val_accuracy", 75},
		{"an error of the test before an accuracy of the validation", map[string]float64{"test-merror": .125, "val_accuracy": .75}, nil, "test-merror", 87.5},
		{"no error is all right", map[string]float64{"test-merror": 0}, nil, "test-merror", 100},
		{"nothing right is none", map[string]float64{"test-merror": 1}, nil, "", 0},
		{"an error that is no share is none", map[string]float64{"test-merror": 25, "eval-merror": math.NaN(), "valid-merror": -.1, "train-merror": math.Inf(1)}, nil, "", 0},
		{"other errors", map[string]float64{"validation-error": .2, "train_error": .2, "error": .2, "test_error": .1, "validation_0-error_at_0.7": .2, "mean_squared_error": .3,
			"training_mean_absolute_error": .4, "valid_0-multi_error_at_2": .1, "test-rmse": .2, "validation_0-error": .2, "cat-merror": .2, "max_error": .3, "multi-error": .1}, nil, "", 0},
		{"the user's word is an error", map[string]float64{"validation_0-merror": .25}, []string{"validation_0-merror"}, "validation_0-merror", 75},
		{"the user's word is an error of another kind", map[string]float64{"validation-error": .25}, []string{"validation-error"}, "validation-error", 25},
		{"the user's word is below zero", map[string]float64{"r2_score": -.25, "test_accuracy": .9}, []string{"r2_score"}, "", 0},
		{"r2 never counts by itself", map[string]float64{"r2": .9, "R2_score": .9, "r2_score": .9, "val_r2": .9, "training_score": .9, "explained_variance": .9}, nil, "", 0},
	} {
		metrics := map[string]mlflow.Metric{}
		for k, v := range c.metrics {
			metrics[k] = mlflow.Metric{Key: k, Value: v, Timestamp: 1}
		}
		percent, key, ok := accuracy(mlflow.Run{Metrics: metrics}, c.wanted)
		assert.Equal(t, c.key != "", ok, c.name)
		assert.Equal(t, c.key, key, c.name)
		assert.InDelta(t, c.percent, percent, 1e-9, c.name)
	}
}

// XGBoost's "error" is a share of wrong answers where it tells two classes apart, and anything in other people's loops.
func TestErrorOfTwoClasses(t *testing.T) {
	t.Parallel()
	metrics := map[string]mlflow.Metric{}
	for key, v := range map[string]float64{"train-error": .01, "test-error": .25, "test-error_at_0.7": .125, "test_error": .03, "error": .5} {
		metrics[key] = mlflow.Metric{Key: key, Value: v, Timestamp: 1}
	}
	for objective, want := range map[string]string{"binary:logistic": "test-error", "reg:squarederror": "", "multi:softmax": "", "": ""} {
		percent, key, _ := accuracy(mlflow.Run{Metrics: metrics, Params: map[string]string{"objective": objective}}, nil)
		assert.Equal(t, want, key, objective)
		if want != "" {
			assert.InDelta(t, 75, percent, 1e-9)
		}
	}
}

// MLflow keeps a NaN that was sent bare as 0 at time 0: no error at all would be an accuracy of 100 %.
func TestAnErrorThatIsNoNumberIsNoPerfection(t *testing.T) {
	t.Parallel()
	_, _, ok := accuracy(mlflow.Run{Metrics: map[string]mlflow.Metric{"test-merror": {Key: "test-merror"}}}, nil)
	assert.False(t, ok)
}
