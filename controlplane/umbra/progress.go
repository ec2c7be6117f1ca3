package main

import (
	"fmt"
	"io"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// stepText is a step in one line.
func stepText(step *umbrav1.Step) string {
	text := fmt.Sprintf("%-22s %s", lower(step.GetKind().String(), "STEP_KIND_"), lower(step.GetState().String(), "STEP_STATE_"))
	if step.GetEndTime() != nil {
		text += " in " + length(step.GetEndTime().AsTime().Sub(step.GetStartTime().AsTime()))
	}
	if step.GetProgress().GetTotalBytes() > 0 {
		text += "  " + progressText(step.GetProgress())
	}
	if step.GetMessage() != "" {
		text += "  " + step.GetMessage()
	}
	return text
}

const barWidth = 20

// progressText is a bar, with bytes, rate and time left.
func progressText(progress *umbrav1.Progress) string {
	share := share(progress)
	full := int(share * barWidth)
	text := fmt.Sprintf("[%s%s] %3.0f%%  %s of %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), 100*share,
		size(progress.GetDoneBytes()), size(progress.GetTotalBytes()))
	if progress.GetBytesPerSecond() > 0 {
		text += ", " + size(progress.GetBytesPerSecond()) + "/s"
	}
	if left := progress.GetTimeLeft(); left != nil {
		text += ", " + length(left.AsDuration()) + " left"
	}
	return text
}

// share is how much is done, from 0 to 1.
func share(progress *umbrav1.Progress) float64 {
	if progress.GetTotalBytes() <= 0 {
		return 0
	}
	return min(1, max(0, float64(progress.GetDoneBytes())/float64(progress.GetTotalBytes())))
}

// progress shows the steps of an operation as they move: on a terminal the one that runs is drawn again in place, elsewhere
// there is a line for each change of state and each tenth of the bytes.
type progress struct {
	out     io.Writer
	redraws bool
	shown   map[umbrav1.StepKind]string
}

func newProgress(out io.Writer, redraws bool) *progress {
	return &progress{out: out, redraws: redraws, shown: map[umbrav1.StepKind]string{}}
}

const (
	clearLine = "\r\x1b[K"
	// Between these a terminal cuts off what is wider than it is: of a line that was wrapped only the last row would be drawn over.
	cutOff, wrap = "\x1b[?7l", "\x1b[?7h"
)

// show shows what has moved.
func (p *progress) show(operation *umbrav1.Operation, v view) {
	for _, step := range operation.GetSteps() {
		if step.GetState() == umbrav1.StepState_STEP_STATE_PENDING {
			continue
		}
		running := step.GetState() == umbrav1.StepState_STEP_STATE_RUNNING
		if p.redraws && running {
			_, _ = fmt.Fprint(p.out, clearLine, cutOff, stepText(step), wrap)
			continue
		}
		now := fmt.Sprint(step.GetState(), int(10*share(step.GetProgress())))
		if !running {
			now = step.GetState().String()
		}
		if p.shown[step.GetKind()] == now {
			continue
		}
		p.shown[step.GetKind()] = now
		if p.redraws {
			_, _ = fmt.Fprintln(p.out, clearLine+stepText(step))
		} else {
			_, _ = fmt.Fprintln(p.out, v.now.In(v.zone).Format("15:04:05 MST")+"  "+stepText(step))
		}
	}
}

// end leaves the line that is drawn again and again.
func (p *progress) end() {
	if p.redraws {
		_, _ = fmt.Fprint(p.out, clearLine)
	}
}
