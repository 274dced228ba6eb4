//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A user who may not look into others' processes is told what would let the proxy see whose runs they are.
func TestDoctorForAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("takes root to become another user")
	}
	program, err := binary()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "otheruser") // a folder that others may enter, unlike the test's own
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	// Copied by another process: while this one has the file open to write, a fork in a test beside it would hold it, too.
	out, err := exec.CommandContext(t.Context(), "cp", program, dir).CombinedOutput()
	require.NoError(t, err, string(out))
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, filepath.Base(program)), "doctor")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err = cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "which are other users'")
	assert.Contains(t, string(out), "sudo setcap cap_sys_ptrace")
}
