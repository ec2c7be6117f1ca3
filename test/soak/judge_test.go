package main

import (
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run is a run of 90 looks at one process, after which each value is what grow makes of the look's number.
func looksOf(grow func(n int64, l *look)) []look {
	looks := make([]look, 90)
	for i := range looks {
		looks[i] = look{process: "hostd", memoryBytes: 100 << 20, descriptors: 20, threads: 10}
		grow(int64(i), &looks[i])
	}
	return looks
}

func TestWhatGrowsIsNamedAndWhatOnlyWarmsUpOrBreathesIsNot(t *testing.T) {
	tests := map[string]struct {
		grow func(n int64, l *look)
		want string
	}{
		"nothing":          {func(int64, *look) {}, ""},
		"warming up":       {func(n int64, l *look) { l.memoryBytes = min(n, 30) * (4 << 20) }, ""},
		"breathing":        {func(n int64, l *look) { l.memoryBytes += n % 10 << 20 }, ""},
		"leaking memory":   {func(n int64, l *look) { l.memoryBytes += n << 20 }, "the memory of hostd"},
		"leaking sockets":  {func(n int64, l *look) { l.descriptors += n / 5 }, "more descriptors"},
		"leaking threads":  {func(n int64, l *look) { l.threads += n / 5 }, "more threads"},
		"too short a time": {func(n int64, l *look) { l.process = strings.Repeat("x", int(n)) }, "too few"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := judge(io.Discard, looksOf(test.grow))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("judged %v, want %q", err, test.want)
			}
		})
	}
}
