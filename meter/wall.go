package meter

import "fmt"

// Line is a machine's own line from what its components use to what it draws at the wall: W = Slope x components + Offset.
// Power supplies, fans, disks and boards are in it. Against a wall meter, component sensors were found 20 to 37 % low,
// and one line per machine took the error from 29 % to 6 % (318 runs of CodeCarbon on an i9-13900K with an RTX 4090).
type Line struct {
	Slope  float64 // 0 is taken for 1
	Offset Power
}

func (l Line) slope() float64 {
	if l.Slope == 0 {
		return 1
	}
	return l.Slope
}

func (l Line) known() bool { return l.slope() != 1 || l.Offset != 0 }

// String writes the line as a formula.
func (l Line) String() string {
	return fmt.Sprintf("%.4g x components + %.4g W", l.slope(), l.Offset.Watts())
}

// wallLine reckons the power at the wall by a line that was found once.
type wallLine struct{ Line }

// lineBounds are wider than the error that was left after fitting: a line is of the loads that it was fitted to.
var lineBounds = Bounds{Low: 0.9, High: 1.1}

func (wallLine) Method() string { return "line" }
func (wallLine) Bounds() Bounds { return lineBounds }

// Detail is what doctor shows.
func (w wallLine) Detail() string { return w.String() }

// Read is WallSensor's.
func (w wallLine) Read(components Energy, l Load) (Energy, error) {
	return components*Energy(w.slope()) + w.Offset.Over(l.Elapsed), nil
}
