package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// stuckGPU answers only when it is told to.
type stuckGPU struct {
	fakeGPU
	answers chan bool
}

func (g *stuckGPU) Read(load Load) ([]GPUReading, error) {
	<-g.answers
	return g.fakeGPU.Read(load)
}

// A driver that hangs holds up no run: its devices are not covered meanwhile.
func TestADriverThatHangs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	driver := &stuckGPU{answers: make(chan bool, 10)}
	driver.readings = []GPUReading{{Device: "0", Energy: 10, Processes: []GPUProcess{{PID: 100}}}}
	hasty := &hastyGPU{GPUSensor: driver, patience: 20 * time.Millisecond}
	m.meter.gpus = []GPUSensor{hasty}
	m.now = m.now.Add(time.Second)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.run(100, 100)
	m.sleep()
	r := s.Record()
	assert.Zero(t, r.Coverage(GPU))
	assert.Equal(t, errHangs.Error(), r.Gaps[GPU].Why)
	assert.InDelta(t, 50, r.Energy()[CPU].Joules(), 1e-9, "all else is counted")

	driver.answers <- true
	assert.Eventually(t, func() bool { return len(hasty.pending) > 0 }, 5*time.Second, time.Millisecond)
	hasty.patience = time.Minute
	driver.answers <- true
	m.sleep()
	r = s.Record()
	assert.Zero(t, r.Energy()[GPU], "it is back, and counts from there")
	assert.Zero(t, r.Coverage(GPU))
	driver.answers <- true
	m.sleep()
	r = s.Record()
	assert.InDelta(t, 10, r.Energy()[GPU].Joules(), 1e-9)
	assert.InDelta(t, 1.0/3, r.Coverage(GPU), 1e-9)
	m.conserved(s)
}
