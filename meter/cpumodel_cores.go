package meter

import (
	"path/filepath"
	"regexp"
	"strings"
)

// modelCore is one of Arm's cores for servers, and the row of the tables that has its power: Amazon's part with this
// core.
type modelCore struct{ name, architecture string }

// modelCores finds them by the part number that the kernel shows as "CPU part" (arch/arm64/include/asm/cputype.h) of
// implementer 0x41, Arm: gopsutil's model and vendor.
//
// Cloud Carbon Footprint knows no measurement of a Graviton (its issue 135): its figures are EPYC 2nd Gen's. Here they
// serve for others' parts with the same cores, too (Altra has N1; Axion and Grace have V2), but not for other cores
// (Ampere's own, Neoverse N2): those go by the median of all architectures.
var modelCores = map[string]modelCore{
	"0xd0c": {"Neoverse N1", "Graviton2"},
	"0xd40": {"Neoverse V1", "Graviton3"},
	"0xd4f": {"Neoverse V2", "Graviton4"},
}

// modelGraviton3E are the instances whose part is Graviton3E: its core, and so its number, is Graviton3's.
var modelGraviton3E = regexp.MustCompile(`^Amazon EC2 (c7gn|hpc7g)\.`)

// architectureOn returns the row of the tables, given the cloud.
func (c modelCore) architectureOn(cloud string) string {
	if c.architecture == "Graviton3" && modelGraviton3E.MatchString(cloud) {
		return "Graviton3E"
	}
	return c.architecture
}

// describe names the part where it is Amazon's, else the core.
func (c modelCore) describe(cloud string) string {
	name := c.name
	if strings.HasPrefix(cloud, "Amazon EC2 ") {
		name = c.architectureOn(cloud)
	}
	return name + ", by EPYC 2nd Gen's figures as Cloud Carbon Footprint has them for Graviton"
}

// modelCloud tells a cloud's machine by its firmware, such as "Amazon EC2 c7g.xlarge"; a space where that says nothing.
func modelCloud(sysfs string) string {
	id := filepath.Join(sysfs, "class", "dmi", "id")
	return sysfsText(id, "sys_vendor") + " " + sysfsText(id, "product_name")
}
