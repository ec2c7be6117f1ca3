package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func short(name, prefix string) string {
	return strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", " ")
}

func size(n int64) string { return humanize.IBytes(uint64(max(0, n))) } //nolint:gosec // not negative

func hostLines(host *umbrav1.Host) string {
	lines := fmt.Sprintf("   %-14s libvirt %s, %s, %s of memory free, %s of space for recovery points",
		host.GetName(), host.GetLibvirtVersion(), host.GetHypervisorVersion(),
		size(host.GetCapacity().GetMemoryFreeBytes()), size(host.GetCapacity().GetStoreFreeBytes()))
	for _, server := range host.GetServers() {
		lines += fmt.Sprintf("\n      server %s, %s", server.GetName(), strings.ToLower(short(server.GetPowerState().String(), "POWER_STATE_")))
		for _, disk := range server.GetDisks() {
			lines += fmt.Sprintf(", %s %s %s", disk.GetTarget(), disk.GetFormat(), size(disk.GetSizeBytes()))
		}
	}
	return lines
}

func pairLine(pair *umbrav1.DRPair) string {
	r := pair.GetReplication()
	line := fmt.Sprintf("   %-24s points %-4d", short(pair.GetState().String(), "DR_PAIR_STATE_"), r.GetRecoveryPointCount())
	if progress := r.GetProgress(); progress.GetTotalBytes() > 0 {
		line += fmt.Sprintf("  %s of %s", size(progress.GetDoneBytes()), size(progress.GetTotalBytes()))
		if progress.GetBytesPerSecond() > 0 {
			line += fmt.Sprintf(", %s/s", size(progress.GetBytesPerSecond()))
		}
	}
	if rpo := r.GetRpo(); rpo != nil {
		line += fmt.Sprintf("  newest is %.1f s old", rpo.AsDuration().Seconds())
	}
	if failure := pair.GetFailure(); failure != nil {
		line += "  " + failure.GetMessage()
	}
	return line
}

// stepLines shows the steps that have moved since they were last shown.
func stepLines(op *umbrav1.Operation, shown map[umbrav1.StepKind]string) []string {
	var lines []string
	for _, step := range op.GetSteps() {
		state := short(step.GetState().String(), "STEP_STATE_")
		if step.GetState() == umbrav1.StepState_STEP_STATE_PENDING {
			continue
		}
		key := state + size(step.GetProgress().GetDoneBytes())
		if shown[step.GetKind()] == key {
			continue
		}
		shown[step.GetKind()] = key
		line := fmt.Sprintf("   %-24s %-8s", strings.ToLower(short(step.GetKind().String(), "STEP_KIND_")), state)
		if step.GetEndTime() != nil {
			line += fmt.Sprintf(" %5.2f s", step.GetEndTime().AsTime().Sub(step.GetStartTime().AsTime()).Seconds())
		}
		if progress := step.GetProgress(); progress.GetTotalBytes() > 0 {
			line += fmt.Sprintf("  %s of %s", size(progress.GetDoneBytes()), size(progress.GetTotalBytes()))
		}
		if step.GetMessage() != "" {
			line += "  " + step.GetMessage()
		}
		lines = append(lines, line)
	}
	return lines
}

func pointLine(point *umbrav1.RecoveryPoint) string {
	marks := ""
	if point.GetNewest() {
		marks += "  newest"
	}
	if point.GetInUse() {
		marks += "  in use"
	}
	name := point.GetName()[strings.LastIndexByte(point.GetName(), '/')+1:]
	return fmt.Sprintf("   %s  %s  changed %-9s%s", name, point.GetPointTime().AsTime().Format("15:04:05.000 MST"), size(point.GetChangedBytes()), marks)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
