package ui

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Table writes columns that are two spaces apart to standard output. Headers
// are printed in upper case; with nil headers there are only rows. Cells are
// made safe; the last column is not padded.
func (u *UI) Table(headers []string, rows [][]string) {
	var lines [][]string
	if headers != nil {
		upper := make([]string, len(headers))
		for i, header := range headers {
			upper[i] = strings.ToUpper(header)
		}
		lines = append(lines, upper)
	}
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = Safe(cell)
		}
		lines = append(lines, cells)
	}
	var widths []int
	for _, line := range lines {
		for i, cell := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], cells(cell))
		}
	}
	for i, line := range lines {
		var b strings.Builder
		for column, cell := range line {
			b.WriteString(cell)
			if column < len(line)-1 {
				b.WriteString(strings.Repeat(" ", widths[column]-cells(cell)+2))
			}
		}
		text := strings.TrimRight(b.String(), " ")
		if i == 0 && headers != nil {
			text = u.Style(Bold, text)
		}
		u.Printf("%s", text)
	}
}

// cells is the number of terminal cells that a safe text takes. East Asian
// wide characters take two; combining marks are counted, which at worst leaves
// a column too wide.
func cells(s string) int {
	n := 0
	for i := 0; i < len(s); {
		properties, size := width.LookupString(s[i:])
		if size == 0 {
			_, size = utf8.DecodeRuneInString(s[i:])
		}
		if kind := properties.Kind(); kind == width.EastAsianWide || kind == width.EastAsianFullwidth {
			n++
		}
		n++
		i += size
	}
	return n
}
