package mlflow

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed requirements.txt
var requirements string

//go:embed constraints.txt
var constraints string

// Environment is a private Python environment with a pinned MLflow.
type Environment struct{ Dir string }

// Python returns the path of the environment's interpreter.
func (e Environment) Python() string { return filepath.Join(e.Dir, "bin", "python") }

// MLflow returns the path of the environment's mlflow command.
func (e Environment) MLflow() string { return filepath.Join(e.Dir, "bin", "mlflow") }

// CacheDir returns the folder under the user's cache in which everything of ours lies.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder; set HOME or XDG_CACHE_HOME: %w", err)
	}
	return filepath.Join(dir, "mlflow-emissions-proxy"), nil
}

// Setup returns the environment of the pinned MLflow, with extra packages as pip names them, and makes it if it is not
// there yet. Progress is written as lines for people. Several processes may call it at once: one makes it, the others
// wait. It needs a network the first time only.
func Setup(ctx context.Context, cacheDir string, extra []string, progress io.Writer) (Environment, error) {
	return setup(ctx, cacheDir, Environment{}, requirements+strings.Join(extra, "\n"), constraints, progress)
}

// SetupOnly is Setup without our own pins: just these packages. Tests use it for clients of other versions.
func SetupOnly(ctx context.Context, cacheDir string, packages []string, progress io.Writer) (Environment, error) {
	return setup(ctx, cacheDir, Environment{}, strings.Join(packages, "\n"), "", progress)
}

// SetupOver is an environment that adds packages, with versions by pins as in a constraints file, to another one, which
// it reads from where that lies: what both need is installed once. The tests of frameworks use it.
func SetupOver(ctx context.Context, cacheDir string, base Environment, packages []string, pins string, progress io.Writer) (Environment, error) {
	return setup(ctx, cacheDir, base, strings.Join(packages, "\n"), constraints+pins, progress)
}

func setup(ctx context.Context, cacheDir string, base Environment, wanted, pins string, progress io.Writer) (Environment, error) {
	python, version, err := findPython(ctx)
	if err != nil {
		return Environment{}, err
	}
	sum := sha256.Sum256([]byte(wanted + "\x00" + pins + "\x00" + python + "\x00" + version + base.Dir))
	dir := filepath.Join(cacheDir, "python-"+hex.EncodeToString(sum[:6]))
	env := Environment{Dir: dir}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return Environment{}, fmt.Errorf("make the cache folder: %w", err)
	}
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return Environment{}, fmt.Errorf("lock the environment: %w", err)
	}
	defer unlock()
	done := filepath.Join(dir, "complete") // written last: an environment without it is half-made
	if _, err := os.Stat(done); err == nil {
		return env, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return Environment{}, fmt.Errorf("remove a half-made environment: %w", err)
	}
	fmt.Fprintf(progress, "Setting up a private Python environment (once; a minute or two) in\n  %s\n", dir)
	if out, err := exec.CommandContext(ctx, python, "-m", "venv", dir).CombinedOutput(); err != nil {
		return Environment{}, fmt.Errorf("make a virtual environment with %s: %w; on Debian and Ubuntu it needs the package python3-venv (%s)", python, err, lastLine(out))
	}
	if base.Dir != "" {
		if err := extend(env, base); err != nil {
			return Environment{}, err
		}
	}
	files := map[string]string{"requirements.txt": wanted, "constraints.txt": pins}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content+"\n"), 0o644); err != nil {
			return Environment{}, err
		}
	}
	if err := pip(ctx, env, progress); err != nil {
		return Environment{}, err
	}
	return env, os.WriteFile(done, []byte(time.Now().Format(time.RFC3339)+"\n"), 0o644)
}

// extend lets an environment see the packages of another one: Python and pip look into the folders that a .pth file
// names, after their own.
func extend(env, base Environment) error {
	from, err := filepath.Glob(filepath.Join(base.Dir, "lib", "python3*", "site-packages"))
	if err != nil {
		return err
	}
	if len(from) != 1 {
		return fmt.Errorf("%s has no one folder of packages: %q", base.Dir, from)
	}
	to, err := filepath.Rel(base.Dir, from[0])
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(env.Dir, to, "base.pth"), []byte(from[0]+"\n"), 0o644)
}

// pip installs the requirements, and shows what it downloads.
func pip(ctx context.Context, env Environment, progress io.Writer) error {
	cmd := exec.CommandContext(ctx, env.Python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--prefer-binary",
		"--progress-bar", "off", "-r", "requirements.txt", "-c", "constraints.txt")
	cmd.Dir = env.Dir
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run pip: %w", err)
	}
	var last []byte
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		last = []byte(line)
		switch {
		case strings.HasPrefix(line, "Collecting "):
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "Collecting "), " ")
			fmt.Fprintln(progress, "  getting", name)
		case strings.HasPrefix(line, "Installing collected packages"):
			fmt.Fprintln(progress, "  installing")
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("pip could not install MLflow: %w; is there a network? (%s)", err, lastLine(last))
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// findPython finds an interpreter that MLflow runs on.
func findPython(ctx context.Context) (path, version string, err error) {
	candidates := []string{"python3", "python"}
	if p := os.Getenv("EMISSIONS_PYTHON"); p != "" {
		candidates = slices.Insert(candidates, 0, p)
	}
	err = errors.New("no Python found; install Python 3.10 or later, or name one by EMISSIONS_PYTHON")
	for _, c := range candidates {
		path, lookErr := exec.LookPath(c)
		if lookErr != nil {
			continue
		}
		out, runErr := exec.CommandContext(ctx, path, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3]); sys.exit(sys.version_info < (3, 10))").Output()
		version = strings.TrimSpace(string(out))
		if runErr == nil {
			return path, version, nil
		}
		err = fmt.Errorf("%s is Python %s; MLflow needs 3.10 or later, which EMISSIONS_PYTHON may name", path, version)
	}
	return "", "", err
}
