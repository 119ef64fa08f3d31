package bench

import (
	"fmt"
	"html"
	"math"
	"strings"
)

const (
	svgRow   = 22
	svgLabel = 430
	svgPlot  = 380
	svgTop   = 44
	svgSpan  = 3.0 // powers of two on each side of the bar
)

// SVG plots every figure that has a bar as how many times better or worse it is, on a logarithmic scale around the bar; the
// tick is the aim.
func (r Report) SVG() string {
	var figures []Figure
	for _, s := range r.Sections {
		for _, f := range s.Figures {
			if f.Bar != 0 && !math.IsNaN(f.Value) {
				figures = append(figures, f)
			}
		}
	}
	height := svgTop + svgRow*len(figures) + 16
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		svgLabel+svgPlot+90, height)
	b.WriteString(`<rect width="100%" height="100%" fill="#ffffff"/>` + "\n")
	fmt.Fprintf(&b, `<text x="10" y="18" font-size="14">Figures against their bars (right of the line is better; tick: aim)</text>`+"\n")
	for power := -svgSpan; power <= svgSpan; power++ {
		x := svgLabel + svgPlot*(power+svgSpan)/(2*svgSpan)
		colour := "#dddddd"
		if power == 0 {
			colour = "#333333"
		}
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`+"\n", x, svgTop-6, x, height-10, colour)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#666666">%sx</text>`+"\n", x, svgTop-10, Number(math.Exp2(power)))
	}
	for i, f := range figures {
		y := svgTop + svgRow*i
		from, to := position(1), position(f.better(f.Value))
		colour := map[string]string{"aim": "#2e7d32", "bar": "#81a65a", "missed": "#c62828"}[f.Verdict()]
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", svgLabel-8, y+14, html.EscapeString(f.Name))
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", min(from, to), y+4, math.Abs(to-from)+1, svgRow-9, colour)
		if f.Aim != 0 {
			x := position(f.better(f.Aim))
			fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#000000" stroke-width="2"/>`+"\n", x, y+2, x, y+svgRow-3)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", svgLabel+svgPlot+8, y+14, html.EscapeString(f.text(f.Value)))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// better is how many times better than the bar v is.
func (f Figure) better(v float64) float64 {
	if f.AtMost {
		return f.Bar / v
	}
	return v / f.Bar
}

// position is the place of a factor on the scale, kept inside it.
func position(factor float64) float64 {
	power := svgSpan
	if factor > 0 {
		power = max(-svgSpan, min(svgSpan, math.Log2(factor)))
	}
	return svgLabel + svgPlot*(power+svgSpan)/(2*svgSpan)
}
