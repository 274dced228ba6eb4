package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sent copies what `docker build .` is sent: all but what .dockerignore names, by plain names.
func sent(t *testing.T) (dir string) {
	t.Helper()
	b, err := os.ReadFile("../.dockerignore")
	require.NoError(t, err)
	ignored := strings.Split(string(b), "\n")
	entries, err := os.ReadDir("..")
	require.NoError(t, err)
	dir = t.TempDir()
	for _, e := range entries {
		from, to := filepath.Join("..", e.Name()), filepath.Join(dir, e.Name())
		switch {
		case slices.Contains(ignored, e.Name()):
		case e.IsDir():
			require.NoError(t, os.CopyFS(to, os.DirFS(from)))
		default:
			content, err := os.ReadFile(from)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(to, content, 0o644))
		}
	}
	return dir
}

// addsItsUser runs a command that adds a user to a system which has those that Debian begins with.
func addsItsUser(t *testing.T, command string) {
	t.Helper()
	users, err := os.ReadFile("/usr/share/base-passwd/passwd.master")
	if err != nil || os.Getuid() != 0 {
		t.Log("not run, since it takes root on Debian: ", command)
		return
	}
	groups, err := os.ReadFile("/usr/share/base-passwd/group.master")
	require.NoError(t, err)
	root := t.TempDir()
	for name, content := range map[string][]byte{"etc/passwd": users, "etc/group": groups, "etc/shadow": nil, "var/lib/none": nil} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), content, 0o600))
	}
	command = strings.NewReplacer("useradd ", "useradd --prefix "+root+" ", " -m 0770 /", " -m 0770 "+root+"/").Replace(command)
	message, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
	require.NoError(t, err, "%s: %s", command, message)
	state, err := os.Stat(filepath.Join(root, "var/lib/mlflow-emissions-proxy"))
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|0o770, state.Mode())
}

// There may be no Docker daemon where tests run, so the Dockerfile's own commands are run here, lest they rot.
func TestDockerfilesCommands(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	out, source := t.TempDir(), sent(t)
	built := false
	for line := range strings.Lines(strings.ReplaceAll(string(b), "\\\n", "")) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch instruction {
		case "COPY":
			words := strings.Fields(rest)
			if strings.HasPrefix(words[0], "--from=build") {
				assert.True(t, built, "what is copied has been built")
				continue
			}
			for _, name := range words[:len(words)-1] {
				assert.FileExists(t, filepath.Join(source, name, map[bool]string{true: "go.mod"}[name == "."]))
			}
		case "RUN":
			if strings.HasPrefix(rest, "useradd ") {
				addsItsUser(t, rest)
				continue
			}
			if !strings.Contains(rest, "go ") {
				continue // of the distribution's own tools
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(rest, "/out/", out+"/"))
			cmd.Dir = source
			message, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s: %s", rest, message)
			built = built || strings.Contains(rest, "go build")
		case "HEALTHCHECK":
			assert.Contains(t, rest, `CMD ["mlflow-emissions-proxy", "healthcheck"]`)
		}
	}
	require.True(t, built)
	message, err := exec.CommandContext(t.Context(), filepath.Join(out, "mlflow-emissions-proxy"), "doctor").CombinedOutput()
	require.NoError(t, err, "the image's binary starts without a driver: %s", message)
}

func TestStaticBinary(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "static")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	message, err := build.CombinedOutput()
	require.NoError(t, err, string(message))
	message, err = exec.CommandContext(t.Context(), path, "doctor").CombinedOutput()
	require.NoError(t, err)
	assert.Contains(t, string(message), "built without NVML")
}
