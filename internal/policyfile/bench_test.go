package policyfile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

// BenchmarkCompile is what a reload costs before the new policy counts.
func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "host-%d.region-%d.example.com\n", i, i%50)
		}
		lists := Files{policy.KindHTTPS: {Name: HTTPSFile, Text: text.String()}}
		b.Run(fmt.Sprintf("hosts/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, problems := Compile(lists); len(problems) > 0 {
					b.Fatal(problems[0])
				}
			}
		})
	}
}
