package main

import (
	"testing"

	"github.com/umbra-dr/umbra/pkg/settings"
	"github.com/umbra-dr/umbra/pkg/settings/settingstest"
)

func TestThePageHasEverySetting(t *testing.T) {
	settingstest.Documented(t, "../../docs/configuration.md", "umbra", settings.Settings{}, &commands{})
}
