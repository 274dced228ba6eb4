//go:build !cgo || !linux

package meter

import "fmt"

// openNVML says that this binary has no NVML: go-nvml needs cgo.
func openNVML() (GPUSensor, error) {
	return nil, fmt.Errorf("%w: this binary was built without NVML (CGO_ENABLED=0)", ErrNoData)
}
