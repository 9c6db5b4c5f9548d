// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"text/template"
)

//go:embed ratios.svg.tmpl
var plotTemplate string

// plot is the data of ratios.svg.tmpl. Each row shows the ratios of one group or case, and
// all rows share one axis. Lengths are in pixels.
type plot struct {
	Width, Height int
	Left, Right   float64 // ends of the axis
	Top, Bottom   float64
	One           float64 // position of ratio 1
	Ticks         []tick
	Rows          []row
	Headings      []heading
	Legend        []legend
	Unit          string // name of the unit, such as "CPU time"
}

type tick struct {
	X     float64
	Label string
}

type heading struct {
	Y    float64
	Text string
}

type legend struct {
	X     float64
	Class string
	Text  string
}

type row struct {
	Y      float64
	Label  string
	Values string
	Marks  []mark
}

// mark is one ratio with its confidence interval.
type mark struct {
	Class     string
	X, Y      float64
	Low, High float64
	Spread    bool
	Beyond    string // an arrow and the ratio, if the ratio is outside the axis
	Title     string
}

// lowest and highest are the ends of the axis. The plot shows a ratio outside as an arrow.
const lowest, highest = 0.55, 1.5

const (
	rowHeight, headingHeight = 19, 34
	axisLeft, axisRight      = 270, 690
)

// x returns the position of a ratio on the logarithmic axis.
func x(ratio float64) float64 {
	ratio = min(max(ratio, lowest), highest)
	return axisLeft + (axisRight-axisLeft)*math.Log(ratio/lowest)/math.Log(highest/lowest)
}

func (r *report) writePlot(path string) error {
	units := r.times()
	p := plot{Width: 860, Left: axisLeft, Right: axisRight, Top: 96, One: x(1), Unit: unitName(units[0])}
	for _, v := range []float64{0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4} {
		p.Ticks = append(p.Ticks, tick{x(v), fmt.Sprintf("%g", v)})
	}
	y := p.Top
	addHeading := func(text string) {
		y += headingHeight
		p.Headings = append(p.Headings, heading{y - 9, text})
	}
	newMark := func(class string, offset float64, what string, c *ratio) mark {
		m := mark{Class: class, X: x(c.Median), Y: y + rowHeight/2 + offset, Title: what + ": " + c.String()}
		if c.Low != nil {
			m.Spread, m.Low, m.High = true, x(*c.Low), x(*c.High)
		}
		switch {
		case c.Median < lowest:
			m.Beyond = fmt.Sprintf("◂ %.2f", c.Median)
		case c.Median > highest:
			m.Beyond = fmt.Sprintf("%.2f ▸", c.Median)
		}
		return m
	}
	others := r.compared()
	for i, o := range others {
		p.Legend = append(p.Legend, legend{axisLeft + 150*float64(i), fmt.Sprintf("c%d", i), o + " / " + stock})
	}
	addRow := func(label string, get func(target string) *ratio) {
		line := row{Y: y, Label: label}
		for i, o := range others {
			if c := get(o); c != nil {
				offset := (float64(i) - float64(len(others)-1)/2) * min(5, rowHeight/float64(len(others)))
				line.Marks = append(line.Marks, newMark(fmt.Sprintf("c%d", i), offset, label+", "+o+" / "+stock, c))
				if o == ours {
					line.Values = c.String()
				}
			}
		}
		if len(line.Marks) > 0 {
			p.Rows = append(p.Rows, line)
			y += rowHeight
		}
	}
	addHeading("Groups")
	addRow("mean of the first six", func(t string) *ratio { return r.overall(units[0], t, stock) })
	for _, g := range groups {
		addRow(g, func(t string) *ratio { return newRatio(r.groupRatios(units[0], t, g, stock)) })
	}
	// The plot shows only cases of clone4 and CLONE_FD with one child at a time. The summary
	// shows every comparison.
	all := slices.DeleteFunc(r.comparisons(), func(c comparison) bool {
		_, number, variant := nameParts(c.of)
		return number != "" || !strings.HasPrefix(variant, "clone4") && !strings.HasSuffix(variant, "-clonefd") && !strings.HasSuffix(variant, "-read")
	})
	if len(all) > 0 {
		addHeading("Pairs of cases")
		for _, c := range all {
			to := c.to
			if c.toIn != c.in {
				to += ", " + c.toIn
			}
			p.Rows = append(p.Rows, row{Y: y, Label: c.of + " / " + to, Values: c.lead.String(), Marks: []mark{newMark("m", 0, c.of+" / "+to, c.lead)}})
			y += rowHeight
		}
	}
	p.Bottom = y
	p.Height = int(y) + 40

	t, err := template.New("plot").Funcs(template.FuncMap{"add": func(a, b float64) float64 { return a + b }}).Parse(plotTemplate)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := t.Execute(&b, p); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
