package meter

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const amdgpuFdinfo = `pos:	0
flags:	02100002
mnt_id:	26
ino:	1201
pasid:	32771
drm-driver:	amdgpu
drm-client-id:	7
drm-pdev:	0000:03:00.0
drm-total-vram:	9000 KiB
drm-shared-vram:	0
drm-memory-vram:	8000 KiB
drm-memory-gtt:	512 MiB
drm-memory-cpu:	0
amd-requested-vram:	9000 KiB
drm-engine-gfx:	1500000000 ns
drm-engine-compute:	500000000 ns
drm-engine-enc:	12.5%
`

const i915Fdinfo = `drm-driver: i915
drm-pdev: 0000:03:00.0
drm-client-id: 7
drm-engine-render: 9288864723 ns
drm-engine-copy: 2035071108 ns
drm-engine-video: 0 ns
drm-engine-capacity-video:   2
drm-resident-local0: 3 MiB
drm-total-local0: 4 MiB
drm-resident-stolen-local0: 0
drm-resident-system0: 20 MiB
`

const xeFdinfo = `drm-driver:	xe
drm-client-id:	3
drm-pdev:	0000:03:00.0
drm-total-system:	0
drm-resident-gtt:	192 KiB
drm-total-vram0:	20000 KiB
drm-resident-vram0:	16 KiB
drm-cycles-rcs:	28000000
drm-total-cycles-rcs:	7600000000
drm-cycles-ccs:	40
drm-total-cycles-ccs:	7600000000
drm-engine-capacity-ccs:	4
`

func TestParseFdinfo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want fdinfo
	}{
		"amdgpu": {amdgpuFdinfo, fdinfo{"amdgpu", drmClientID{"0000:03:00.0", "7"},
			map[string]drmEngine{"gfx": {ns: 1_500_000_000}, "compute": {ns: 500_000_000}}, 8000 << 10}},
		"i915": {i915Fdinfo, fdinfo{"i915", drmClientID{"0000:03:00.0", "7"},
			map[string]drmEngine{"render": {ns: 9288864723}, "copy": {ns: 2035071108}, "video": {capacity: 2}}, 3 << 20}},
		"xe": {xeFdinfo, fdinfo{"xe", drmClientID{"0000:03:00.0", "3"},
			map[string]drmEngine{"rcs": {cycles: 28_000_000, total: 7_600_000_000}, "ccs": {cycles: 40, total: 7_600_000_000, capacity: 4}}, 16 << 10}},
		"no engines, no memory": {"drm-driver: xe\ndrm-pdev: a\ndrm-client-id: 1", fdinfo{"xe", drmClientID{"a", "1"}, map[string]drmEngine{}, 0}},
		"malformed values": {"drm-driver: xe\ndrm-pdev: a\ndrm-client-id: 1\ndrm-engine-a: -5 ns\ndrm-engine-b: 18446744073709551616 ns\ndrm-engine-c: 5\n" +
			"drm-engine-d: 5 ms\ndrm-engine-: 5 ns\ndrm-memory-vram: 17592186044417 MiB\ndrm-resident-vram0: 5 pages\ndrm-engine-e:\n: 7\nx\n",
			fdinfo{"xe", drmClientID{"a", "1"}, map[string]drmEngine{}, 0}},
		"more memory than can be": {"drm-driver: xe\ndrm-pdev: a\ndrm-client-id: 1\ndrm-memory-vram0: 18446744073709551615\ndrm-memory-vram1: 18446744073709551615",
			fdinfo{"xe", drmClientID{"a", "1"}, map[string]drmEngine{}, 1<<64 - 1}},
	} {
		got, ok := parseFdinfo([]byte(c.text))
		assert.True(t, ok, name)
		assert.Equal(t, c.want, got, name)
	}
	for _, text := range []string{"", "pos:\t0\nflags:\t02\n", "drm-driver: amdgpu\ndrm-pdev: 0000:03:00.0\n", "drm-driver:\ndrm-pdev: a\ndrm-client-id: 1",
		"pdev:\t0000:03:00.0\npasid:\t32771\nvram mem:\t8000 kB\ngfx0:\t1.20%\n"} {
		_, ok := parseFdinfo([]byte(text))
		assert.False(t, ok, text)
	}
}

// FuzzParseFdinfo takes two states of one client: whatever they hold, no share is negative, or no number.
func FuzzParseFdinfo(f *testing.F) {
	later := strings.NewReplacer("1500000000", "1600000000", "7600000000", "7700000000", "28000000", "30000000", "9288864723", "1")
	for _, text := range []string{amdgpuFdinfo, i915Fdinfo, xeFdinfo, "drm-driver: x\ndrm-pdev: y\ndrm-client-id: 0\ndrm-engine-capacity-a: 0\ndrm-engine-a: 1 ns\n"} {
		f.Add([]byte(text), []byte(later.Replace(text)), int64(time.Second))
		f.Add([]byte(later.Replace(text)), []byte(text), int64(0))
	}
	f.Fuzz(func(t *testing.T, first, second []byte, elapsed int64) {
		var c drmClients
		load := Load{Elapsed: time.Duration(elapsed)}
		for _, b := range [][]byte{first, second, first} {
			info, ok := parseFdinfo(b)
			if !ok {
				continue
			}
			client := c.follow(info, 1, load)
			if !(client.busy >= 0) || client.busy > 1e30 {
				t.Fatalf("busy %v", client.busy)
			}
			c.clients = map[drmClientID]drmClient{info.client: client}
			c.looked = map[int]bool{1: true}
		}
	})
}

// drmProc is a /proc of processes that use cards.
type drmProc struct {
	t    *testing.T
	root string
	c    drmClients
}

func newDRMProc(t *testing.T, driver string) *drmProc {
	linuxOnly(t) // descriptors are links to where there is nothing
	root := t.TempDir()
	return &drmProc{t, root, newDRMClients(root, driver)}
}

// open makes a process's descriptor, with the fdinfo of a client of the card 0000:03:00.0.
func (p *drmProc) open(pid, fd int, to, client string, lines ...string) {
	p.t.Helper()
	dir := filepath.Join(p.root, strconv.Itoa(pid))
	require.NoError(p.t, os.MkdirAll(filepath.Join(dir, "fd"), 0o755))
	require.NoError(p.t, os.MkdirAll(filepath.Join(dir, "fdinfo"), 0o755))
	link := filepath.Join(dir, "fd", strconv.Itoa(fd))
	_ = os.Remove(link)
	require.NoError(p.t, os.Symlink(to, link))
	text := fmt.Sprintf("drm-driver:\t%s\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t%s\n%s\n", p.c.driver, client, strings.Join(lines, "\n"))
	require.NoError(p.t, os.WriteFile(filepath.Join(dir, "fdinfo", strconv.Itoa(fd)), []byte(text), 0o644))
}

func (p *drmProc) card(pid, fd int, client string, lines ...string) {
	p.t.Helper()
	p.open(pid, fd, "/dev/dri/renderD128", client, lines...)
}

func (p *drmProc) exit(pid int) {
	require.NoError(p.t, os.RemoveAll(filepath.Join(p.root, strconv.Itoa(pid))))
}

// read returns the card's processes after a second.
func (p *drmProc) read(tracked ...int) []GPUProcess {
	return p.c.read(Load{Elapsed: time.Second, Tracked: tracked})["0000:03:00.0"]
}

func ns(engine string, seconds float64) string {
	return fmt.Sprintf("drm-engine-%s:\t%d ns", engine, int64(seconds*1e9))
}

func TestDRMBusy(t *testing.T) {
	t.Parallel()
	p := newDRMProc(t, "i915")
	p.card(100, 5, "1", ns("render", 10), "drm-resident-local0: 2 KiB")
	p.card(200, 5, "2", ns("render", 20))
	assert.Equal(t, []GPUProcess{{PID: 100, Memory: 2048}, {PID: 200}}, p.read(100), "what was before is not this interval's")
	p.card(100, 5, "1", ns("render", 10.5), ns("copy", 0.25), "drm-resident-local0: 1 KiB")
	p.card(200, 5, "2", ns("render", 20), ns("video", 1), "drm-engine-capacity-video: 2")
	assert.Equal(t, []GPUProcess{{PID: 100, Busy: 0.75, Memory: 1024}, {PID: 200, Busy: 0.5}}, p.read(100))

	p.card(100, 5, "1", ns("render", 10.2)) // back, and copy is gone
	assert.Equal(t, []GPUProcess{{PID: 100}, {PID: 200}}, p.read(100), "less than before is no work")
	p.card(100, 5, "1", ns("render", 10.75), ns("copy", 0.25))
	assert.Equal(t, []GPUProcess{{PID: 100, Busy: 0.25}, {PID: 200}}, p.read(100), "from the larger value on, as the kernel's document has it")

	assert.Equal(t, []GPUProcess{{PID: 100}, {PID: 200}}, p.c.read(Load{Tracked: []int{100}})["0000:03:00.0"], "no time passed")
}

func TestDRMCycles(t *testing.T) {
	t.Parallel()
	p := newDRMProc(t, "xe")
	p.card(100, 5, "1", "drm-cycles-ccs: 1000", "drm-total-cycles-ccs: 50000", "drm-engine-capacity-ccs: 4")
	p.read()
	p.card(100, 5, "1", "drm-cycles-ccs: 3000", "drm-total-cycles-ccs: 51000", "drm-engine-capacity-ccs: 4")
	assert.Equal(t, []GPUProcess{{PID: 100, Busy: 0.5}}, p.read(), "two of four engines")
	p.card(100, 6, "2", "drm-cycles-ccs: 3000", "drm-total-cycles-ccs: 51000")
	assert.Equal(t, []GPUProcess{{PID: 100}}, p.read(), "a new client's cycles are out of a count that is older than itself")
}

// A client counts once, however many descriptors and processes share it.
func TestDRMSharedClient(t *testing.T) {
	t.Parallel()
	p := newDRMProc(t, "amdgpu")
	both := func(seconds float64) {
		for _, at := range [][2]int{{100, 5}, {100, 6}, {101, 5}} {
			p.card(at[0], at[1], "1", ns("gfx", seconds), "drm-memory-vram: 1 MiB")
		}
	}
	both(1)
	p.read(100, 101)
	both(1.5)
	assert.Equal(t, []GPUProcess{{PID: 100, Busy: 0.5, Memory: 1 << 20}}, p.read(100, 101))
	p.exit(100)
	p.card(101, 5, "1", ns("gfx", 2), "drm-memory-vram: 1 MiB")
	assert.Equal(t, []GPUProcess{{PID: 101, Busy: 0.5, Memory: 1 << 20}}, p.read(100, 101), "the child goes on with it")
	p.card(99, 5, "1", ns("gfx", 2.5), "drm-memory-vram: 1 MiB")
	p.card(101, 5, "1", ns("gfx", 2.5), "drm-memory-vram: 1 MiB")
	assert.Equal(t, []GPUProcess{{PID: 101, Busy: 0.5, Memory: 1 << 20}}, p.read(99, 101), "and stays its holder")
}

// A card that a run opens between two readings was not used before.
func TestDRMNewClient(t *testing.T) {
	t.Parallel()
	p := newDRMProc(t, "amdgpu")
	p.open(100, 1, "/dev/null", "0")
	p.read(100)
	p.card(100, 5, "1", ns("gfx", 0.25))
	p.card(100, 6, "2", ns("gfx", 3600), ns("compute", 0.5)) // handed on to it
	assert.Equal(t, []GPUProcess{{PID: 100, Busy: 1.75}}, p.read(100))
	p.card(200, 5, "3", ns("gfx", 0.25))
	assert.Equal(t, []GPUProcess{{PID: 100}, {PID: 200}}, p.read(100, 200), "200 may have had it long before it became the run's")
}

func TestDRMLooksAroundNowAndThen(t *testing.T) {
	t.Parallel()
	p := newDRMProc(t, "amdgpu")
	require.Empty(t, p.read())
	p.card(300, 5, "1", ns("gfx", 1))
	p.card(400, 5, "2", ns("gfx", 1))
	for range drmLookAround - 1 {
		require.Equal(t, []GPUProcess{{PID: 400}}, p.read(400), "processes of the runs at once")
	}
	require.Equal(t, []GPUProcess{{PID: 300}, {PID: 400}}, p.read(400), "others after a while")
	p.card(300, 5, "1", ns("gfx", 1.5))
	require.Equal(t, []GPUProcess{{PID: 300, Busy: 0.5}, {PID: 400}}, p.read(), "and from then on each time")
	p.exit(300)
	p.exit(400)
	require.Empty(t, p.read(400))
	require.Empty(t, p.c.holders)
}

// What is not a card, another driver's, or cannot be read is left out.
func TestDRMOtherDescriptors(t *testing.T) {
	t.Parallel()
	p := newDRMProc(t, "amdgpu")
	p.open(100, 3, "/dev/driver", "1", ns("gfx", 1))
	p.open(100, 4, "socket:[7]", "1", ns("gfx", 1))
	p.card(100, 5, "2", "drm-driver: i915")
	p.card(100, 6, "3")
	require.NoError(t, os.Remove(filepath.Join(p.root, "100", "fdinfo", "6")))
	p.card(100, 7, "")
	require.NoError(t, os.WriteFile(filepath.Join(p.root, "200"), nil, 0o644))
	assert.Empty(t, p.read(100, 200, 300))
}

// The engines' clocks know nothing of ROCm's work: a compositor must not get a trainer's energy.
func TestDRMComputeHasNoClock(t *testing.T) {
	t.Parallel()
	p := newDRMProc(t, "amdgpu")
	use := func(seconds float64, memory string) {
		p.card(100, 5, "1", "drm-memory-vram: "+memory)
		p.open(100, 6, "/dev/kfd", "0")
		p.card(200, 5, "2", ns("gfx", seconds), "drm-memory-vram: 1 KiB")
	}
	use(1, "3 KiB")
	p.read(100)
	use(1.5, "3 KiB")
	assert.Equal(t, []GPUProcess{{PID: 100, Memory: 3072}, {PID: 200, Memory: 1024}}, p.read(100))
	use(2, "0")
	assert.Equal(t, []GPUProcess{{PID: 100}, {PID: 200, Busy: 0.5, Memory: 1024}}, p.read(100), "it has the card open, but does not use it")
}

// A reading of a whole machine: energy and who used it.
func TestDRMReading(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	d := newDRMTree(t, "amd-discrete")
	p := &drmProc{t, filepath.Join(d.root, "proc"), newDRMClients("", "amdgpu")}
	p.card(100, 5, "1", ns("gfx", 1), "drm-resident-vram: 5 KiB")
	s := d.open()
	require.Equal(t, "amdgpu", s.Method())
	_, err := s.Read(Load{})
	require.NoError(t, err)
	p.card(100, 5, "1", ns("gfx", 2), "drm-resident-vram: 5 KiB")
	r, err := s.Read(Load{Elapsed: 2 * time.Second, Tracked: []int{100}})
	require.NoError(t, err)
	assert.Equal(t, []GPUReading{{Device: "0000:03:00.0", Energy: 70, Processes: []GPUProcess{{PID: 100, Busy: 0.5, Memory: 5 << 10}}}}, r)
}
