package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The Java client, which speaks IPv4 through an IPv6 socket.
func TestJava(t *testing.T) {
	t.Parallel()
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		t.Skip("no Maven to fetch and run the Java client with")
	}
	if _, err := exec.LookPath("javac"); err != nil {
		t.Skip("no JDK to compile what uses the Java client")
	}
	p := startProxy(t)
	project := t.TempDir()
	require.NoError(t, os.CopyFS(project, os.DirFS(filepath.Join("testdata", "java"))))
	cmd := exec.CommandContext(t.Context(), mvn, "-q", "-B", "-Dstyle.color=never", "compile", "exec:java", "-Dexec.mainClass=Train", "-Dexec.args="+p.url+" "+t.Name())
	cmd.Dir = project
	r := of(t, output(t, cmd)["run"])
	assert.Equal(t, "FINISHED", r.Status)
	m := figures(t, r)
	assert.InEpsilon(t, 50/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
}
