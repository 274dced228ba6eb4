package meter

import (
	"errors"
	"time"
)

// gpuPatience is how long a driver may take for a reading: some tens of milliseconds are usual. Beginning and ending
// runs wait for it, and so do their clients.
const gpuPatience = time.Second

// hastyGPU waits for a sensor no longer than patience. A driver may hang for minutes when a card fails.
type hastyGPU struct {
	GPUSensor
	patience time.Duration
	pending  chan gpuAnswer // of a reading that was not waited for any longer; nil for none
}

type gpuAnswer struct {
	readings []GPUReading
	err      error
}

var (
	errHangs   = errors.New("the driver does not answer")
	errAnswers = errors.New("the driver answers again, and counts from here")
)

// Read is GPUSensor's. While the driver hangs it is an error at once. The first reading after that is one, too: its
// interval began before the driver answered.
func (h *hastyGPU) Read(load Load) ([]GPUReading, error) {
	hung := h.pending != nil
	if hung {
		select {
		case <-h.pending:
		default:
			return nil, errHangs
		}
	}
	answer := make(chan gpuAnswer, 1)
	go func() {
		readings, err := h.GPUSensor.Read(load)
		answer <- gpuAnswer{readings, err}
	}()
	limit := time.NewTimer(h.patience)
	defer limit.Stop()
	select {
	case a := <-answer:
		h.pending = nil
		if hung {
			return nil, errAnswers
		}
		return a.readings, a.err
	case <-limit.C:
		h.pending = answer
		return nil, errHangs
	}
}

// Close is GPUSensor's. A driver that hangs is left alone: the program is about to end.
func (h *hastyGPU) Close() {
	if h.pending == nil {
		h.GPUSensor.Close()
	}
}
