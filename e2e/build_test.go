package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// There may be no Docker daemon where tests run, so the Dockerfile's own commands are run here, lest they rot.
func TestDockerfilesCommands(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	out := t.TempDir()
	built := false
	for line := range strings.Lines(string(b)) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch instruction {
		case "COPY":
			words := strings.Fields(rest)
			if strings.HasPrefix(words[0], "--from=build") {
				assert.True(t, built, "what is copied has been built")
				continue
			}
			for _, name := range words[:len(words)-1] {
				assert.FileExists(t, filepath.Join("..", name, map[bool]string{true: "go.mod"}[name == "."]))
			}
		case "RUN":
			if !strings.Contains(rest, "go ") {
				continue // of the distribution's own tools
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(rest, "/out/", out+"/"))
			cmd.Dir = ".."
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
