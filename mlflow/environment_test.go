package mlflow

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakePython writes an interpreter that makes an environment without a network, and counts how often it did.
func fakePython(t *testing.T, version string, fail string) (log string) {
	t.Helper()
	dir := t.TempDir()
	log = filepath.Join(dir, "log")
	script := `#!/bin/sh
case "$1 $2" in
"-c "*) echo ` + version + `; case ` + version + ` in 3.8*) exit 1;; esac;;
"-m venv") mkdir -p "$3/bin" "$3/lib/python3.12/site-packages" && cp "$0" "$3/bin/python" && echo venv >> ` + log + `;;
"-m pip") echo "Collecting mlflow==1"; echo pip >> ` + log + `; ` + fail + `;;
esac
`
	path := filepath.Join(dir, "python3")
	require.NoError(t, os.WriteFile(path, []byte(script), 0o755))
	t.Setenv("EMISSIONS_PYTHON", path)
	return log
}

func TestSetupMakesTheEnvironmentOnce(t *testing.T) {
	log := fakePython(t, "3.12.1", "")
	cache := t.TempDir()
	var progress strings.Builder
	env, err := Setup(t.Context(), cache, nil, &progress)
	require.NoError(t, err)
	assert.FileExists(t, env.Python())
	assert.Contains(t, progress.String(), "getting mlflow==1")
	again, err := Setup(t.Context(), cache, nil, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, env, again)
	other, err := Setup(t.Context(), cache, []string{"more"}, io.Discard)
	require.NoError(t, err)
	assert.NotEqual(t, env, other, "other packages, another environment")
	done, err := os.ReadFile(log)
	require.NoError(t, err)
	assert.Equal(t, "venv\npip\nvenv\npip\n", string(done))
}

// What the base has is not installed again, and another base is another environment.
func TestSetupOverAnEnvironment(t *testing.T) {
	fakePython(t, "3.12.1", "")
	cache := t.TempDir()
	base, err := Setup(t.Context(), cache, nil, io.Discard)
	require.NoError(t, err)
	env, err := SetupOver(t.Context(), cache, base, []string{"more"}, "more==1", io.Discard)
	require.NoError(t, err)
	assert.NotEqual(t, base, env)
	pth, err := os.ReadFile(filepath.Join(env.Dir, "lib", "python3.12", "site-packages", "base.pth"))
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(base.Dir, "lib", "python3.12", "site-packages")+"\n", string(pth))
	wanted, err := os.ReadFile(filepath.Join(env.Dir, "requirements.txt"))
	require.NoError(t, err)
	assert.Equal(t, "more\n", string(wanted))
	pins, err := os.ReadFile(filepath.Join(env.Dir, "constraints.txt"))
	require.NoError(t, err)
	assert.Contains(t, string(pins), "mlflow==3.17.2")
	assert.Contains(t, string(pins), "more==1")
	_, err = SetupOver(t.Context(), cache, Environment{Dir: t.TempDir()}, []string{"more"}, "", io.Discard)
	assert.ErrorContains(t, err, "no one folder of packages")
}

func TestAHalfMadeEnvironmentIsMadeAnew(t *testing.T) {
	fakePython(t, "3.12.1", "exit 1")
	cache := t.TempDir()
	_, err := Setup(t.Context(), cache, nil, io.Discard)
	assert.ErrorContains(t, err, "is there a network?")
	log := fakePython(t, "3.12.1", "")
	_, err = Setup(t.Context(), cache, nil, io.Discard)
	require.NoError(t, err)
	assert.FileExists(t, log)
}

func TestAnOldPythonIsNamed(t *testing.T) {
	fakePython(t, "3.8.2", "")
	t.Setenv("PATH", t.TempDir())
	_, err := Setup(t.Context(), t.TempDir(), nil, io.Discard)
	assert.ErrorContains(t, err, "3.10 or later")
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mlflow")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\necho no such database >&2\nexit 3\n"), 0o755))
	_, err := StartServer(t.Context(), ServerConfig{Command: path, Dir: dir})
	assert.ErrorContains(t, err, "no such database")
}
