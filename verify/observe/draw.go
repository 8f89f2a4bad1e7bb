package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/color"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours that people with any kind of colour vision can tell apart (Okabe and Ito).
var colours = []color.RGBA{
	{R: 0, G: 114, B: 178, A: 255}, {R: 230, G: 159, B: 0, A: 255}, {R: 0, G: 158, B: 115, A: 255}, {R: 213, G: 94, B: 0, A: 255},
	{R: 204, G: 121, B: 167, A: 255}, {R: 86, G: 180, B: 233, A: 255}, {R: 120, G: 120, B: 120, A: 255}, {R: 0, G: 0, B: 0, A: 255},
}

type panel struct {
	Title       string
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []struct{ Expr, LegendFormat string }
}

// A curve is one series of a panel.
type curve struct {
	name   string
	points plotter.XYs
}

var units = map[string]string{"reqps": "calls / s", "s": "s", "percentunit": "part", "short": ""}

// drawPanels asks Prometheus the queries of each panel of a dashboard, and draws the answers.
func drawPanels(ctx context.Context, address, dashboard, file string, from, to time.Time) error {
	source, err := os.ReadFile(dashboard)
	if err != nil {
		return err
	}
	var d struct{ Panels []panel }
	if err := json.Unmarshal(source, &d); err != nil {
		return err
	}
	rows := (len(d.Panels) + 1) / 2
	plots := make([][]*plot.Plot, rows)
	for i, p := range d.Panels {
		var curves []curve
		for _, target := range p.Targets {
			found, err := query(ctx, address, target.Expr, target.LegendFormat, from, to)
			if err != nil {
				return fmt.Errorf("%s: %w", p.Title, err)
			}
			curves = append(curves, found...)
		}
		drawn, err := plotOf(p, curves)
		if err != nil {
			return err
		}
		plots[i/2] = append(plots[i/2], drawn)
	}
	return save(plots, file)
}

// query returns the answer of one query, without series that are 0 throughout, to keep legends short.
func query(ctx context.Context, address, expr, legend string, from, to time.Time) (curves []curve, err error) {
	expr = strings.NewReplacer("$__rate_interval", "5s", "$namespace", ".*").Replace(expr)
	values := url.Values{"query": {expr}, "start": {unix(from)}, "end": {unix(to)}, "step": {"1"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/query_range?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s: %s", expr, answer.Error)
	}
	for _, series := range answer.Data.Result {
		c := curve{name: legend}
		for label, value := range series.Metric {
			c.name = strings.ReplaceAll(c.name, "{{"+label+"}}", value)
		}
		highest := 0.0
		for _, v := range series.Values {
			y, err := strconv.ParseFloat(fmt.Sprint(v[1]), 64)
			if err != nil || math.IsNaN(y) || math.IsInf(y, 0) {
				continue
			}
			at, _ := v[0].(float64)
			c.points = append(c.points, plotter.XY{X: at - float64(from.UnixMilli())/1000, Y: y})
			highest = max(highest, y)
		}
		if highest > 0 {
			curves = append(curves, c)
		}
	}
	slices.SortFunc(curves, func(a, b curve) int { return strings.Compare(a.name, b.name) })
	return curves, nil
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

func plotOf(p panel, curves []curve) (*plot.Plot, error) {
	drawn := plot.New()
	drawn.Title.Text, drawn.Y.Label.Text, drawn.X.Label.Text = p.Title, units[p.FieldConfig.Defaults.Unit], "seconds"
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	for style, size := range map[*text.Style]vg.Length{
		&drawn.Title.TextStyle: 13, &drawn.X.Label.TextStyle: 10, &drawn.Y.Label.TextStyle: 10,
		&drawn.X.Tick.Label: 9, &drawn.Y.Tick.Label: 9, &drawn.Legend.TextStyle: 9,
	} {
		style.Font = sans
		style.Font.Size = size
	}
	drawn.Add(plotter.NewGrid())
	highest := 0.0
	for i, c := range curves {
		line, err := plotter.NewLine(c.points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = colours[i%len(colours)], 1.5
		drawn.Add(line)
		drawn.Legend.Add(c.name, line)
		for _, point := range c.points {
			highest = max(highest, point.Y)
		}
	}
	drawn.X.Min, drawn.X.Max = 0, whole.Seconds()
	drawn.Y.Min, drawn.Y.Max = 0, highest*(1.1+.13*float64(len(curves))) // room for the legend
	drawn.Legend.Top, drawn.Legend.Left, drawn.Legend.ThumbnailWidth, drawn.Legend.XOffs = true, true, 16, 4
	return drawn, nil
}

func save(plots [][]*plot.Plot, file string) error {
	canvas := vgsvg.NewWith(vgsvg.UseWH(11*vg.Inch, vg.Length(len(plots))*2.7*vg.Inch))
	tiles := draw.Tiles{Rows: len(plots), Cols: 2, PadX: 18, PadY: 14, PadTop: 8, PadBottom: 8, PadLeft: 8, PadRight: 16}
	for row, dcs := range plot.Align(plots, tiles, draw.New(canvas)) {
		for column, dc := range dcs {
			plots[row][column].Draw(dc)
		}
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return err
	}
	const laidOut = "font-family:Liberation Sans"
	return os.WriteFile(file, bytes.ReplaceAll(out.Bytes(), []byte(laidOut), []byte(laidOut+",Arial,Helvetica,sans-serif")), 0o644)
}
