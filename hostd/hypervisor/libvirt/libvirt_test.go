package libvirt_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/hostd/hypervisor/hypervisortest"
	"github.com/umbra-dr/umbra/pkg/lab/labtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRealLibvirt runs everything that needs one on a lab's two hosts: one runs servers as root, the other as libvirt
// does by default.
func TestRealLibvirt(t *testing.T) {
	l := labtest.Up(t, labtest.Config(t))
	tests := []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"JobFolderBelongsToTheServersUser", jobFolderBelongsToTheServersUser},
		{"LinksAreSetNowAndInTheDefinition", linksAreSetNowAndInTheDefinition},
		{"WhatTheFirmwareReadsIsCounted", whatTheFirmwareReadsIsCounted},
		{"DefinitionThatDoesNotFitIsIncompatible", definitionThatDoesNotFitIsIncompatible},
		{"OldImageFormatTracksNoChanges", oldImageFormatTracksNoChanges},
		{"SizeThatTheImageDoesNotTellIsAskedFor", sizeThatTheImageDoesNotTellIsAskedFor},
		{"DiagnosticsTellTheServersStateAndNoSecrets", diagnosticsTellTheServersStateAndNoSecrets},
		{"OverlayOverASliceRunsAndIsCopiedToStandAlone", overlayOverASliceRunsAndIsCopiedToStandAlone},
		{"ManyCallsAtOnceShareAFewConnections", manyCallsAtOnceShareAFewConnections},
		{"HangingLibvirtdLetsCallsReturnAtTheirDeadline", hangingLibvirtdLetsCallsReturnAtTheirDeadline},
		{"HangingServerHoldsUpOnlyItself", hangingServerHoldsUpOnlyItself},
		{"LibvirtdThatRestartsIsReconnectedToAndItsJobIsEnded", libvirtdThatRestartsIsReconnectedToAndItsJobIsEnded},
		{"BackupJobThatLibvirtdHasLostIsNamed", backupJobThatLibvirtdHasLostIsNamed},
		{"BrokenBitmapsAreNotLeftInTheImage", brokenBitmapsAreNotLeftInTheImage},
		{"CheckpointOfAServerThatIsOffLeavesNothingInTheImage", checkpointOfAServerThatIsOffLeavesNothingInTheImage},
		{"CheckpointOfAnImageThatCannotBeOpenedStays", checkpointOfAnImageThatCannotBeOpenedStays},
		{"DeletionAndStartAtOnceEndCleanly", deletionAndStartAtOnceEndCleanly},
		{"HangingServerIsShutDown", hangingServerIsShutDown},
		{"CycleIsTimed", cycleIsTimed},
	}
	for _, host := range l.Hosts() {
		t.Run(host.Name, func(t *testing.T) {
			for _, test := range tests {
				t.Run(test.name, func(t *testing.T) { test.test(t, newWorld(t, l, host)) })
			}
			t.Run("Contract", func(t *testing.T) { hypervisortest.Run(t, newWorld(t, l, host)) })
		})
	}
}

func cleanup() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}
