package monitoring_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	grafana "github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// board is the dashboard as every Grafana imports it; the format that is to replace it needs a new one.
type board = grafana.Dashboard //nolint:staticcheck // deprecated in favour of that other format

// Grafana's own schema has no field that may be left out among a panel's options; Grafana itself gives them their defaults.
const leftOut = "required field is missing from input"

func TestTheDashboardIsOneByGrafanasOwnSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	content := []byte(read(t, "dashboard.json"))
	var wrong cog.BuildErrors
	if err := new(board).UnmarshalJSONStrict(content); err != nil && !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	for _, what := range wrong {
		if what.Message != leftOut || !strings.Contains(what.Path, "].options.") {
			t.Error(what)
		}
	}
	var decoded board
	must(t, json.Unmarshal(content, &decoded))
	must(t, decoded.Validate())
	for i, entry := range decoded.Panels {
		if entry.Panel == nil {
			t.Errorf("entry %d is no panel", i)
			continue
		}
		if _, unread := entry.Panel.Options.(map[string]any); unread || entry.Panel.Options == nil {
			t.Errorf("panel %q is of no type that Grafana brings: %q", *entry.Panel.Title, entry.Panel.Type)
		}
	}
}
