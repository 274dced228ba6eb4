package report

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"

	"mlflow-emissions-proxy/mlflow"

	weight "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The plots, as --plot names them.
const (
	PlotAccuracy    = "accuracy"    // against emissions, with the Pareto front
	PlotPredictions = "predictions" // emissions of 10,000
	PlotEnergy      = "energy"      // by component
)

// plotWidth is how wide plots are. A PNG has three pixels a point, so that it is sharp where it is shown at half its size.
const (
	plotWidth = 640 * vg.Length(1)
	plotDPI   = 216
)

// plotBars is how many bars one plot has at most.
const plotBars = 40

// The colours are Okabe and Ito's, which the colour-blind tell apart.
var (
	ink     = color.RGBA{0x16, 0x19, 0x1d, 0xff}
	soft    = color.RGBA{0x59, 0x61, 0x6b, 0xff}
	hair    = color.RGBA{0xdf, 0xe3, 0xe7, 0xff}
	palette = []color.RGBA{{0x00, 0x72, 0xb2, 0xff}, {0xe6, 0x9f, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0xcc, 0x79, 0xa7, 0xff}, {0x56, 0xb4, 0xe9, 0xff}}
	front   = color.RGBA{0xd5, 0x5e, 0x00, 0xff}
)

// WritePlot draws one of the plots of the chosen runs, as "svg" or "png". It is an error if no run has what it shows.
func (c Comparison) WritePlot(w io.Writer, kind, format string) error {
	var p *plot.Plot
	var height vg.Length
	var err error
	switch kind {
	case PlotPredictions:
		p, height, err = c.barPlot("Emissions of 10,000 predictions", massUnits, false, []part{{"", palette[0], func(r Run) Value { return 1000 * r.Per10 }}})
	case PlotEnergy:
		p, height, err = c.barPlot("Energy by component", energyUnits, true, []part{
			{"CPU", palette[0], func(r Run) Value { return r.CPU }},
			{"GPU", palette[2], func(r Run) Value { return r.GPU }},
			{"RAM", palette[1], func(r Run) Value { return r.RAM }},
		})
	default:
		p, height, err = c.bubblePlot()
	}
	if err != nil {
		return err
	}
	var canvas interface {
		vg.CanvasSizer
		io.WriterTo
	}
	if format == "png" {
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(plotWidth, height), vgimg.UseDPI(plotDPI))}
	} else {
		canvas = vgsvg.New(plotWidth, height)
	}
	area := draw.New(canvas)
	p.Draw(draw.Crop(area, 14, -22, 12, -14))
	_, err = canvas.WriteTo(w)
	return err
}

// letters is a style of writing.
func letters(size vg.Length, c color.Color) text.Style {
	return text.Style{Color: c, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size), Handler: text.Plain{Fonts: font.DefaultCache}}
}

// newPlot is an empty plot in the page's style.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = 10
	bold := letters(14, ink)
	bold.Font.Weight = weight.WeightBold
	bold.XAlign, bold.YAlign = text.XCenter, text.YTop
	p.Title.TextStyle = bold
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Width = soft, 0.5
		axis.Tick.Color, axis.Tick.Width, axis.Tick.Length = soft, 0.5, 4
		align := [2]float64{float64(axis.Tick.Label.XAlign), float64(axis.Tick.Label.YAlign)}
		axis.Tick.Label = letters(10.5, soft)
		axis.Tick.Label.XAlign, axis.Tick.Label.YAlign = text.XAlignment(align[0]), text.YAlignment(align[1])
		rotation, x, y := axis.Label.TextStyle.Rotation, axis.Label.TextStyle.XAlign, axis.Label.TextStyle.YAlign
		axis.Label.TextStyle = letters(11, soft)
		axis.Label.TextStyle.Rotation, axis.Label.TextStyle.XAlign, axis.Label.TextStyle.YAlign = rotation, x, y
		axis.Label.Padding = 6
	}
	p.Legend.TextStyle = letters(10.5, soft)
	p.Legend.Top = true
	p.Legend.Padding = 5
	p.Legend.ThumbnailWidth = 14
	return p
}

// bubblePlot draws accuracy against emissions.
func (c Comparison) bubblePlot() (*plot.Plot, vg.Length, error) {
	var points []Run
	for _, r := range c.Chosen() {
		if r.Accuracy.Known() && r.Emissions.Known() && r.Emissions > 0 {
			points = append(points, r)
		}
	}
	if len(points) == 0 {
		return nil, 0, errors.New("no run has both an accuracy and emissions")
	}
	title := "Accuracy and emissions"
	if size := (pageData{Comparison: c}).SizeName(); size != "" {
		title += "; area: " + size
	}
	p := newPlot(title)
	b := newBubbles(points)
	least, most := b.least, b.most
	if most > 30*least {
		p.X.Scale, p.X.Tick.Marker, p.X.Label.Text = plot.LogScale{}, plot.TickerFunc(logTicks), "emissions, logarithmic"
		p.X.Min, p.X.Max = least/1.6, most*1.6
	} else {
		u := fitting(massUnits, Value(most))
		p.X.Tick.Marker, p.X.Label.Text = ticks(func(v float64) string { return tidy(v / float64(u.scale)) }), "emissions in "+u.name
		margin := (most - least) * 0.12
		if margin == 0 {
			margin = most * 0.2
		}
		p.X.Min, p.X.Max = max(0, least-margin), most+margin
	}
	p.Y.Tick.Marker, p.Y.Label.Text = ticks(tidy), "accuracy in %"
	margin := max(0.5, (b.top-b.bottom)*0.12)
	p.Y.Min, p.Y.Max = max(0, b.bottom-margin), min(b.top+margin, 102)
	p.Add(grid{vertical: true, horizontal: true}, frontLine(points), b)
	p.Legend.Add("Pareto front", swatch{front, true})
	if len(b.groups) > 1 {
		for i, g := range b.groups {
			p.Legend.Add(cut(mlflow.OneLine(g), 28), swatch{palette[i%len(palette)], false})
		}
	}
	p.Legend.Left, p.Legend.Top = false, false
	p.Legend.YOffs, p.Legend.XOffs = 4, -4
	return p, 420, nil
}

// bubbles are runs by emissions and accuracy.
type bubbles struct {
	runs                     []Run
	groups                   []string // experiments
	least, most, bottom, top float64
	biggest                  Value
}

func newBubbles(runs []Run) bubbles {
	b := bubbles{runs: slices.Clone(runs), least: math.Inf(1), bottom: math.Inf(1)}
	for _, r := range runs {
		b.least, b.most = min(b.least, float64(r.Emissions)), max(b.most, float64(r.Emissions))
		b.bottom, b.top = min(b.bottom, float64(r.Accuracy)), max(b.top, float64(r.Accuracy))
		if r.Size.Known() {
			b.biggest = max(b.biggest, r.Size)
		}
		if !slices.Contains(b.groups, r.Experiment) {
			b.groups = append(b.groups, r.Experiment)
		}
	}
	// Large ones first, so that small ones lie on top.
	slices.SortStableFunc(b.runs, func(x, y Run) int { return cmp.Compare(b.radius(y), b.radius(x)) })
	return b
}

// radius makes a bubble's area what its size is.
func (b bubbles) radius(r Run) vg.Length {
	switch {
	case b.biggest == 0:
		return 6
	case !r.Size.Known():
		return 3
	}
	return vg.Length(4 + 20*math.Sqrt(float64(r.Size/b.biggest)))
}

// Plot is plot.Plotter's.
func (b bubbles) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := letters(10, ink)
	style.XAlign, style.YAlign = text.XCenter, text.YBottom
	var taken []vg.Rectangle
	for _, r := range b.runs {
		at := vg.Point{X: x(float64(r.Emissions)), Y: y(float64(r.Accuracy))}
		col := palette[slices.Index(b.groups, r.Experiment)%len(palette)]
		var circle vg.Path
		circle.Move(vg.Point{X: at.X + b.radius(r), Y: at.Y})
		circle.Arc(at, b.radius(r), 0, 2*math.Pi)
		circle.Close()
		if r.Metering == Measured {
			c.SetColor(color.NRGBA{col.R, col.G, col.B, 0xa0})
			c.Fill(circle)
			continue
		}
		c.SetLineStyle(draw.LineStyle{Color: col, Width: 1.5, Dashes: []vg.Length{3, 2}})
		c.Stroke(circle)
	}
	for _, r := range b.byImportance() { // a label is left out where it would lie on another
		label := cut(mlflow.OneLine(cmp.Or(r.Name, r.ID)), 28)
		at := vg.Point{X: x(float64(r.Emissions)), Y: y(float64(r.Accuracy)) + b.radius(r) + 2}
		half := style.Width(label) / 2
		at.X = min(max(at.X, c.Min.X+half), c.Max.X-half)
		box := vg.Rectangle{Min: vg.Point{X: at.X - half, Y: at.Y}, Max: vg.Point{X: at.X + half, Y: at.Y + 11}}
		if slices.ContainsFunc(taken, func(o vg.Rectangle) bool {
			return o.Min.X < box.Max.X && box.Min.X < o.Max.X && o.Min.Y < box.Max.Y && box.Min.Y < o.Max.Y
		}) {
			continue
		}
		taken = append(taken, box)
		c.FillText(style, at, label)
	}
}

// byImportance puts the runs on the front first.
func (b bubbles) byImportance() []Run {
	runs := slices.Clone(b.runs)
	slices.SortStableFunc(runs, func(x, y Run) int {
		switch {
		case x.Pareto == y.Pareto:
			return cmp.Compare(y.Accuracy, x.Accuracy)
		case x.Pareto:
			return -1
		}
		return 1
	})
	return runs
}

// frontLine joins the runs that no other beats: what accuracy there is for so much.
type frontLine []Run

// Plot is plot.Plotter's.
func (f frontLine) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var on []Run
	for _, r := range f {
		if r.Pareto {
			on = append(on, r)
		}
	}
	slices.SortFunc(on, func(a, b Run) int { return cmp.Compare(a.Emissions, b.Emissions) })
	var line []vg.Point
	for i, r := range on {
		if i > 0 {
			line = append(line, vg.Point{X: x(float64(r.Emissions)), Y: line[len(line)-1].Y})
		}
		line = append(line, vg.Point{X: x(float64(r.Emissions)), Y: y(float64(r.Accuracy))})
	}
	c.StrokeLines(draw.LineStyle{Color: front, Width: 1.2}, line)
}

// part is one of the parts that bars are made of.
type part struct {
	name  string
	color color.RGBA
	of    func(Run) Value
}

// barPlot draws a bar for each run, of one or several parts.
func (c Comparison) barPlot(title string, units []unit, highest bool, parts []part) (*plot.Plot, vg.Length, error) {
	b := bars{units: units}
	for _, part := range parts {
		if slices.ContainsFunc(c.Chosen(), func(r Run) bool { return part.of(r).Known() }) {
			b.parts = append(b.parts, part)
		}
	}
	for _, r := range c.Chosen() {
		if b.sum(r) > 0 {
			b.runs = append(b.runs, r)
		}
	}
	if len(b.runs) == 0 {
		return nil, 0, fmt.Errorf("no run has what this shows: %s", title)
	}
	slices.SortStableFunc(b.runs, func(x, y Run) int { return cmp.Compare(b.sum(x), b.sum(y)) })
	if highest {
		slices.Reverse(b.runs)
	}
	if len(b.runs) > plotBars {
		word := "lowest"
		if highest {
			word = "highest"
		}
		title += fmt.Sprintf("; the %d %s of %d", plotBars, word, len(b.runs))
		b.runs = b.runs[:plotBars]
	}
	p := newPlot(title)
	most := 0.0
	for _, r := range b.runs {
		most = max(most, b.sum(r))
	}
	u := fitting(units, Value(most))
	p.X.Min, p.X.Max = 0, most*1.14
	p.X.Tick.Marker, p.X.Label.Text = ticks(func(v float64) string { return tidy(v / float64(u.scale)) }), u.name
	p.Y.Min, p.Y.Max = -0.7, float64(len(b.runs))-0.3
	p.Y.Width, p.Y.Tick.Length = 0, 0
	p.Y.Tick.Marker = plot.TickerFunc(func(float64, float64) []plot.Tick {
		var names []plot.Tick
		for i, r := range b.runs {
			names = append(names, plot.Tick{Value: float64(len(b.runs) - 1 - i), Label: cut(mlflow.OneLine(cmp.Or(r.Name, r.ID)), 30)})
		}
		return names
	})
	p.Y.Tick.Label.Color = ink
	p.Add(grid{vertical: true}, b)
	if len(b.parts) > 1 {
		for _, part := range b.parts {
			p.Legend.Add(part.name, swatch{part.color, false})
		}
		p.Legend.Top, p.Legend.YOffs = !highest, 6
	}
	return p, vg.Length(96 + 22*len(b.runs)), nil
}

type bars struct {
	runs  []Run
	parts []part
	units []unit
}

func (b bars) sum(r Run) float64 {
	sum := 0.0
	for _, part := range b.parts {
		if v := part.of(r); v.Known() {
			sum += float64(v)
		}
	}
	return sum
}

// Plot is plot.Plotter's.
func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := letters(10, soft)
	style.YAlign = text.YCenter
	for i, r := range b.runs {
		row := float64(len(b.runs) - 1 - i)
		low, high, from := y(row-0.34), y(row+0.34), 0.0
		for _, part := range b.parts {
			v := part.of(r)
			if !v.Known() {
				continue
			}
			box := []vg.Point{{X: x(from), Y: low}, {X: x(from + float64(v)), Y: low}, {X: x(from + float64(v)), Y: high}, {X: x(from), Y: high}}
			from += float64(v)
			if r.Metering == Measured {
				c.FillPolygon(part.color, box)
			} else {
				c.StrokeLines(draw.LineStyle{Color: part.color, Width: 1.2, Dashes: []vg.Length{3, 2}}, append(box, box[0]))
			}
		}
		c.FillText(style, vg.Point{X: x(from) + 4, Y: (low+high)/2 + 1.5}, in(b.units, Value(from)))
	}
}

// grid draws a hair line at each tick.
type grid struct{ vertical, horizontal bool }

// Plot is plot.Plotter's.
func (g grid) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := draw.LineStyle{Color: hair, Width: 0.6}
	for _, t := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		if g.vertical && !t.IsMinor() {
			c.StrokeLine2(style, x(t.Value), c.Min.Y, x(t.Value), c.Max.Y)
		}
	}
	for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		if g.horizontal && !t.IsMinor() {
			c.StrokeLine2(style, c.Min.X, y(t.Value), c.Max.X, y(t.Value))
		}
	}
}

// swatch shows a colour in the legend.
type swatch struct {
	color color.RGBA
	line  bool
}

// Thumbnail is plot.Thumbnailer's.
func (s swatch) Thumbnail(c *draw.Canvas) {
	middle := c.Center().Y
	if s.line {
		c.StrokeLine2(draw.LineStyle{Color: s.color, Width: 1.5}, c.Min.X, middle, c.Max.X, middle)
		return
	}
	c.FillPolygon(s.color, []vg.Point{{X: c.Min.X + 2, Y: middle - 4}, {X: c.Max.X - 2, Y: middle - 4}, {X: c.Max.X - 2, Y: middle + 4}, {X: c.Min.X + 2, Y: middle + 4}})
}

// ticks are about five round numbers, 1, 2 or 5 of a power of ten apart, written by format.
func ticks(format func(float64) string) plot.Ticker {
	return plot.TickerFunc(func(low, high float64) []plot.Tick {
		step := math.Pow(10, math.Floor(math.Log10((high-low)/5)))
		for _, larger := range []float64{2, 2.5, 2} { // 2, 5, 10
			if (high-low)/step <= 7 {
				break
			}
			step *= larger
		}
		var all []plot.Tick
		for i := math.Ceil(low / step); i*step <= high; i++ {
			all = append(all, plot.Tick{Value: i * step, Label: format(i * step)})
		}
		return all
	})
}

// logTicks are 1, 2 and 5 of each power of ten.
func logTicks(low, high float64) []plot.Tick {
	var all []plot.Tick
	few := math.Log10(high/low) < 2.5
	for exponent := math.Floor(math.Log10(low)); exponent <= math.Log10(high); exponent++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, exponent); v >= low && v <= high {
				t := plot.Tick{Value: v}
				if m == 1 || few {
					t.Label = tidy(v/float64(fitting(massUnits, Value(v)).scale)) + " " + fitting(massUnits, Value(v)).name
				}
				all = append(all, t)
			}
		}
	}
	return all
}

// tidy writes a round number without the zeros behind it.
func tidy(v float64) string {
	return grouped(fmt.Sprint(math.Round(v*1e9) / 1e9))
}
