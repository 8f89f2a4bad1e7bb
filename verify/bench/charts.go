package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours that people with any kind of colour vision can tell apart (Okabe and Ito).
var (
	blue       = color.RGBA{R: 0, G: 114, B: 178, A: 255}
	orange     = color.RGBA{R: 230, G: 159, B: 0, A: 255}
	green      = color.RGBA{R: 0, G: 158, B: 115, A: 255}
	vermillion = color.RGBA{R: 213, G: 94, B: 0, A: 255}
	grey       = color.RGBA{R: 120, G: 120, B: 120, A: 255}
	faint      = color.RGBA{R: 225, G: 225, B: 225, A: 255}
)

const (
	chartWidth  = 8 * vg.Inch
	chartHeight = 4.5 * vg.Inch
)

func newPlot(title, x, y string) *plot.Plot {
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	for style, size := range map[*text.Style]vg.Length{
		&p.Title.TextStyle: 15, &p.X.Label.TextStyle: 12, &p.Y.Label.TextStyle: 12,
		&p.X.Tick.Label: 11, &p.Y.Tick.Label: 11, &p.Legend.TextStyle: 11,
	} {
		style.Font = sans
		style.Font.Size = size
	}
	p.Title.Padding, p.X.Padding, p.Y.Padding = 10, 6, 6
	p.Legend.Padding, p.Legend.ThumbnailWidth = 3, 24
	return p
}

// save writes a chart with fonts that a viewer has: the text is laid out for the first of them, and
// Arial and Helvetica are as wide. The margin is for those that are wider.
func save(p *plot.Plot, file string) error {
	canvas := vgsvg.NewWith(vgsvg.UseWH(chartWidth, chartHeight))
	const margin = 14
	p.Draw(draw.Crop(draw.New(canvas), margin, -2*margin, margin/2, -margin))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return err
	}
	const laidOut = "font-family:Liberation Sans"
	return os.WriteFile(file, bytes.ReplaceAll(out.Bytes(), []byte(laidOut), []byte(laidOut+",Arial,Helvetica,sans-serif")), 0o644)
}

// latencyChart has a pair of bars for each peer, the slowest at the top.
func latencyChart(peers []peerTimes) (*plot.Plot, error) {
	sorted := slices.Clone(peers)
	slices.SortStableFunc(sorted, func(a, b peerTimes) int { return int(a.first - b.first) })
	slices.Reverse(sorted) // the first one is drawn at the bottom
	firsts, replays, names := make(plotter.Values, len(sorted)), make(plotter.Values, len(sorted)), make([]string, len(sorted))
	for i, p := range sorted {
		firsts[i], replays[i], names[i] = p.first/1e3, p.replay/1e3, p.name+"   "
	}
	p := newPlot("One caller at a time: latency by library", "median, µs", "")
	const width = 16
	for _, bars := range []struct {
		name   string
		values plotter.Values
		color  color.Color
		offset vg.Length
	}{{"first run", firsts, blue, width / 2}, {"replay", replays, orange, -width / 2}} {
		chart, err := plotter.NewBarChart(bars.values, width)
		if err != nil {
			return nil, err
		}
		chart.Horizontal, chart.Color, chart.Offset, chart.LineStyle.Width = true, bars.color, bars.offset, 0
		labels, err := barLabels(bars.values, bars.offset)
		if err != nil {
			return nil, err
		}
		p.Add(chart, labels)
		p.Legend.Add(bars.name, chart)
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, 1.15*slices.Max(firsts)
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, chartWidth/2
	return p, nil
}

// barLabels writes each value beside its bar.
func barLabels(values plotter.Values, offset vg.Length) (*plotter.Labels, error) {
	var at plotter.XYLabels
	for i, v := range values {
		at.XYs = append(at.XYs, plotter.XY{X: v, Y: float64(i)})
		at.Labels = append(at.Labels, fmt.Sprintf("%.0f", v))
	}
	labels, err := plotter.NewLabels(at)
	if err != nil {
		return nil, err
	}
	labels.Offset = vg.Point{X: 4, Y: offset - 3}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
	}
	return labels, nil
}

// throughputChart has a line for each way, over the number of goroutines.
func throughputChart(title string, curves []curve) (*plot.Plot, error) {
	p := newPlot(title, "goroutines of one process", "thousand a second")
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = marks(concurrency)
	p.Add(grid())
	highest := 0.0
	for i, c := range curves {
		points := make(plotter.XYs, len(c.goroutines))
		for j, g := range c.goroutines {
			points[j] = plotter.XY{X: float64(g), Y: c.perSecond[j] / 1e3}
			highest = max(highest, points[j].Y)
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		// This library has full lines; its floor of the same colour is dashed.
		line.Color, line.Width = []color.Color{blue, vermillion}[i/2], 2
		dots.Color, dots.Shape, dots.Radius = line.Color, draw.CircleGlyph{}, 3
		if i%2 == 1 {
			line.Dashes = []vg.Length{5, 4}
		}
		p.Add(line, dots)
		p.Legend.Add(c.name, line)
	}
	p.Y.Min, p.Y.Max = 0, 1.05*highest
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, 8
	return p, nil
}

func grid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = faint, faint
	return g
}

func marks(numbers []int) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, n := range numbers {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: grouped(n)})
	}
	return ticks
}

// wakeChart shows which share of waiters is back after which time.
func wakeChart(seen wakes) (*plot.Plot, error) {
	p := newPlot("End of fn to the return of a waiter in another process", "time, logarithmic", "share of waiters that are back, %")
	p.X.Scale = plot.LogScale{}
	p.Add(grid())
	labels := map[string]string{
		"bare": "bare commit and PUBLISH", "idempotent": "idempotent",
		"redislock": "redislock, polls: 100 ms", "redsync": "redsync, polls: 50–250 ms",
	}
	colors := map[string]color.Color{"bare": grey, "idempotent": blue, "redislock": orange, "redsync": green}
	lowest, highest := math.Inf(1), 0.0
	for _, name := range seen.names {
		times := slices.Sorted(slices.Values(seen.times[name]))
		if len(times) == 0 {
			continue
		}
		points := make(plotter.XYs, len(times))
		for i, ns := range times {
			points[i] = plotter.XY{X: max(ns, 1e3) / 1e6, Y: 100 * float64(i+1) / float64(len(times))}
		}
		lowest, highest = min(lowest, points[0].X), max(highest, points[len(points)-1].X)
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width, line.StepStyle = colors[name], 2, plotter.PostStep
		if name == "bare" {
			line.Dashes = []vg.Length{5, 4}
		}
		p.Add(line)
		p.Legend.Add(labels[name], line)
	}
	p.X.Tick.Marker = timeTicks(lowest, highest)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = lowest*0.8, highest*1.2, 0, 100
	// Between those who are told and those who poll.
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs, p.Legend.YOffs = true, true, chartWidth/3, -chartHeight/5
	return p, nil
}

// timeTicks are 1, 2 and 5 of each power of ten, from milliseconds.
func timeTicks(low, high float64) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for power := 1e-3; power <= high; power *= 10 {
		for _, digit := range []float64{1, 2, 5} {
			if v := power * digit; v >= low*0.8 && v <= high*1.2 {
				ticks = append(ticks, plot.Tick{Value: v, Label: timeLabel(v)})
			}
		}
	}
	return ticks
}

func timeLabel(ms float64) string {
	if ms < 1 {
		return trimmed(ms*1e3) + " µs"
	}
	return trimmed(ms) + " ms"
}

// writeCharts writes the charts of a run into a directory.
func (r *report) writeCharts(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for file, draw := range map[string]func() (*plot.Plot, error){
		"latency.svg":           func() (*plot.Plot, error) { return latencyChart(r.peerTimes) },
		"throughput-replay.svg": func() (*plot.Plot, error) { return throughputChart("Replays of distinct keys", r.curves[0]) },
		"throughput-first.svg":  func() (*plot.Plot, error) { return throughputChart("First runs", r.curves[1]) },
		"wake-up.svg":           func() (*plot.Plot, error) { return wakeChart(r.wakes) },
	} {
		p, err := draw()
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := save(p, filepath.Join(dir, file)); err != nil {
			return err
		}
	}
	return nil
}
