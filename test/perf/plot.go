// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"math"
	"os"
	"strings"
	"text/template"
)

//go:embed ratios.svg.tmpl
var plotTemplate string

// plot is the data of the template: a column of ratios, group by group. Lengths are
// in pixels.
type plot struct {
	Width, Height int
	Left, Right   float64 // of the axis
	Top, Bottom   float64
	One           float64 // where the ratio is 1
	Ticks         []tick
	Rows          []row
	Headings      []heading
	Legend        []legend
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

// mark is a ratio with its interval.
type mark struct {
	Class     string
	X, Y      float64
	Low, High float64
	Spread    bool
	Beyond    string // an arrow, if the ratio is outside of the axis
	Title     string
}

// Ratios beyond these are shown as arrows.
const lowest, highest = 0.75, 1.35

const (
	rowHeight, headingHeight = 19, 34
	axisLeft, axisRight      = 190, 640
)

// x returns where a ratio is on the axis, which is logarithmic.
func x(ratio float64) float64 {
	ratio = min(max(ratio, lowest), highest)
	return axisLeft + (axisRight-axisLeft)*math.Log(ratio/lowest)/math.Log(highest/lowest)
}

func (r *report) writePlot(path string) error {
	p := plot{Width: 860, Left: axisLeft, Right: axisRight, Top: 96, One: x(1)}
	for _, v := range []float64{0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.3} {
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
	var others []string
	for _, t := range r.targets {
		if t.name != native && t.name != stock && t.name != fd {
			p.Legend = append(p.Legend, legend{axisLeft + 210*float64(len(others)), fmt.Sprintf("c%d", len(others)), t.name + " / stock runsc"})
			others = append(others, t.name)
		}
	}
	group := ""
	for _, name := range r.names {
		g, n, variant := nameParts(name)
		line := row{Label: strings.TrimSpace(n + " " + variant), Values: r.value(stock, name) + " → " + r.value(ours, name)}
		var of []string
		for _, o := range others {
			if r.ratio(o, name, stock, name) != nil {
				of = append(of, o)
			}
		}
		if len(of) == 0 {
			continue
		}
		if g != group {
			addHeading(g)
			group = g
		}
		line.Y = y
		for i, o := range others {
			if c := r.ratio(o, name, stock, name); c != nil {
				offset := (float64(i) - float64(len(others)-1)/2) * 6
				line.Marks = append(line.Marks, newMark(fmt.Sprintf("c%d", i), offset, name+", "+o+" / stock", c))
			}
		}
		p.Rows = append(p.Rows, line)
		y += rowHeight
	}
	if methods := r.methods(); len(methods) > 0 {
		addHeading("In one sandbox: clone4 / clone3, end of a child / SIGCHLD")
		for _, c := range methods {
			p.Rows = append(p.Rows, row{Y: y, Label: c.of, Values: r.value(c.in, c.to) + " → " + r.value(c.in, c.of), Marks: []mark{newMark("m", 0, c.of+" / "+c.to, c.ratio)}})
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
