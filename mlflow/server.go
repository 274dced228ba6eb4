package mlflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// startTimeout is how long a server may take: the first start makes the database.
const startTimeout = 3 * time.Minute

// ServerConfig says which server to start.
type ServerConfig struct {
	Command string    // path of the mlflow command
	Dir     string    // where its database and artifacts lie
	Output  io.Writer // what it prints; nil: nowhere
	Args    []string  // further arguments of mlflow server
	Lean    bool      // without background jobs, which start faster: for demo and tests
}

// Server is an MLflow tracking server that runs as our child.
type Server struct {
	url  *url.URL
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended
	err  error         // why, once done is closed
	tail *tail
}

// FindServer returns the mlflow command on PATH.
func FindServer() (string, error) {
	path, err := exec.LookPath("mlflow")
	if err != nil {
		return "", errors.New("no mlflow on PATH to start; install it (pip install mlflow), or name a running server by --upstream URL")
	}
	return path, nil
}

// StartServer starts a tracking server on SQLite, on a free port of this machine, and returns when it answers.
func StartServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	command, err := filepath.Abs(cfg.Command)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, fmt.Errorf("find a port for the mlflow server: %w", err)
	}
	s := &Server{url: &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, done: make(chan struct{}), tail: &tail{}}
	args := append([]string{"server", "--host", "127.0.0.1", "--port", strconv.Itoa(port),
		"--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts", "--workers", "1"}, cfg.Args...)
	s.cmd = exec.Command(command, args...)
	s.cmd.Dir = cfg.Dir
	s.cmd.Env = append(os.Environ(), "PYTHONUNBUFFERED=1", "GIT_PYTHON_REFRESH=quiet")
	if cfg.Lean {
		s.cmd.Env = append(s.cmd.Env, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true")
	}
	output := io.Writer(s.tail)
	if cfg.Output != nil {
		output = io.MultiWriter(s.tail, cfg.Output)
	}
	s.cmd.Stdout, s.cmd.Stderr = output, output
	s.cmd.SysProcAttr = childAttributes()
	s.cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread ends that started the child, so it must stay.
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.err = s.cmd.Wait()
			signalGroup(s.cmd.Process.Pid, syscall.SIGKILL) // what it left behind
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", command, err)
	}
	if err := s.ready(ctx); err != nil {
		_ = s.Stop(time.Second)
		return nil, err
	}
	return s, nil
}

// ready waits until the server answers.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.JoinPath("health").String(), nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.done:
			return fmt.Errorf("the mlflow server ended at its start (%w); its last words: %s", s.err, s.tail)
		case <-ctx.Done():
			return fmt.Errorf("the mlflow server does not answer at %s: %w", s.url, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// URL returns the server's base URL.
func (s *Server) URL() *url.URL { return s.url }

// Done is closed when the server has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop ends the server and all that it started: at first by SIGTERM, after the time-out by SIGKILL. Stopping a server
// that ended is no error.
func (s *Server) Stop(timeout time.Duration) error {
	signalGroup(s.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(timeout):
		signalGroup(s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.done
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// tail keeps the last of what was written, for an error message.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 600

// Write is io.Writer's.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-tailSize):]
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(bytes.ToValidUTF8(t.b, nil)))
}
