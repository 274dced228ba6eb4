package e2e

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// sdk is an environment with mlflow-emissions-sdk beside the pinned MLflow, what it imports (but for PyTorch, see
// testdata/sdk/torch), and Optuna. Its last release on the package index names none of the 171 packages that it was
// developed with, so that it does not take MLflow back to 2.4.
var sdk = sync.OnceValues(func() (mlflow.Environment, error) {
	cache, err := mlflow.CacheDir()
	if err != nil {
		return mlflow.Environment{}, err
	}
	return mlflow.Setup(context.Background(), cache, []string{
		"mlflow-emissions-sdk==0.16.4", "codecarbon==3.3.2", "keras==3.15.1", "jax==0.10.2", "optuna==5.0.0"}, os.Stderr)
})

func sdkEnvironment(t *testing.T) mlflow.Environment {
	t.Helper()
	env, err := sdk()
	require.NoError(t, err)
	return env
}
