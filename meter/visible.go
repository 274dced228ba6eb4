package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// hostNamespace is the number of the pid namespace in which a machine boots (PROC_PID_INIT_INO in the kernel's
// include/linux/proc_ns.h).
const hostNamespace = "pid:[4026531836]"

// contained says whether the processes under procfs have numbers of a container's own.
func contained(procfs string) bool {
	ns, err := os.Readlink(filepath.Join(procfs, "self", "ns", "pid"))
	return err == nil && ns != hostNamespace && procfs == "/proc"
}

// visible finds out whose processes can be told: those of this container only, or also the machine's; this user's
// only, or also others'.
func visible(procfs string) Finding {
	f := Finding{Component: Processes, Method: "proc", Used: true}
	if runtime.GOOS != "linux" {
		f.Method, f.Detail = "system", "as far as this system shows them; children that end between two readings are lost"
		return f
	}
	seen, closed := 0, 0
	dirs, _ := filepath.Glob(filepath.Join(procfs, "[0-9]*"))
	for _, dir := range dirs {
		if _, err := strconv.Atoi(filepath.Base(dir)); err != nil {
			continue
		}
		seen++
		if errors.Is(lookInto(filepath.Join(dir, "fd")), fs.ErrPermission) {
			closed++
		}
	}
	where := "of this machine"
	if contained(procfs) {
		where = "of this container"
		f.Remedy = "docker run --pid host, to meter what runs outside of it"
		if InPod() {
			f.Remedy = "shareProcessNamespace: true in the pod's spec, to meter its other containers"
		}
	}
	f.Detail = fmt.Sprintf("%d processes %s", seen, where)
	if closed > 0 {
		f.Detail += fmt.Sprintf("; of %d, which are other users', it cannot be told which runs they open", closed)
		f.Remedy = "run as the user who trains, or: sudo setcap cap_sys_ptrace,cap_dac_read_search+ep mlflow-emissions-proxy; " +
			"in a container: docker run --user 0 --cap-add SYS_PTRACE"
	}
	return f
}

// lookInto tries what finding the process at the other end of a connection takes. Root may list the folder without
// CAP_SYS_PTRACE, but not read the links in it.
func lookInto(fd string) error {
	open, err := os.ReadDir(fd)
	if err != nil || len(open) == 0 {
		return err
	}
	_, err = os.Readlink(filepath.Join(fd, open[0].Name()))
	return err
}
