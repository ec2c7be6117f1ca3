package main

import (
	"testing"

	"github.com/umbra-dr/umbra/pkg/settings/settingstest"
)

func TestThePageHasEverySetting(t *testing.T) {
	settingstest.Documented(t, "../../docs/configuration.md", "umbra-hostd", own, &flags{})
}

func TestTheFileToBeginWithIsComplete(t *testing.T) {
	settingstest.Complete(t, "../../deploy/etc/hostd.yaml", own, &flags{})
}
