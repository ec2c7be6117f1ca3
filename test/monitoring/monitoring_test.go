package monitoring_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestTheRulesFireWhenTheyShouldAndNotOtherwise(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		check := exec.Command("promtool", args...)
		check.Dir = deployed
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	rules, tests := read(t, "alerts.yaml"), read(t, "alerts_test.yaml")
	for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1) {
		for _, what := range []string{" fires\n", " is silent\n"} {
			if !strings.Contains(tests, "name: "+alert[1]+what) {
				t.Errorf("nothing tries that %s%s", alert[1], what)
			}
		}
	}
	if strings.Count(rules, "alert: ") != strings.Count(rules, "runbook: ") {
		t.Error("an alert does not say what to do")
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(deployed, name))
	must(t, err)
	return string(content)
}

func TestARealPrometheusSeesWhatTheAlertsAndTheDashboardAsk(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs a Prometheus")
	}
	plane := startPlane(t)
	a, b := plane.startHost(t, "a"), plane.startHost(t, "b")
	a.addServer(t, "srv")
	prometheus := startPrometheus(t, []string{plane.metrics}, []string{a.metrics, b.metrics})
	plane.protect(t)
	// A histogram's rate needs a second cycle.
	for _, expression := range []string{
		`umbra_pair_condition{pair="p",condition="Protected"} == 1`, `umbra_replication_cycle_duration_seconds_count{kind="increment",outcome="done"} > 2`,
		`umbra_pair_recovery_points{pair="p"} > 1`, `umbra_pair_store_bytes{pair="p"} > 0`, `sum(umbra_replication_sent_bytes_total{pair="p"}) > 0`,
		`umbra_store_written_bytes_total{pair="p"} > 0`, `umbra_host_connected{host="b"} == 1`, `umbra_etcd_lease_held == 1`,
	} {
		prometheus.untilTrue(t, expression)
	}
	a.stop()
	prometheus.untilTrue(t, `ALERTS{alertname="UmbraHostNotConnected",alertstate="firing",host="a"}`)
	prometheus.untilTrue(t, `umbra_pair_failure{pair="p",reason="MAIN_HOST_UNREACHABLE"}`)
	prometheus.untilTrue(t, `ALERTS{alertname="UmbraPairInError",alertstate="firing",pair="p"}`)

	operation := plane.failover(t)
	prometheus.untilTrue(t, `umbra_operation_duration_seconds_count{kind="FAILOVER",outcome="SUCCEEDED"} == 1`)
	prometheus.untilTrue(t, `umbra_pair_state{pair="p",state="FAILED_OVER"}`)
	logged(t, strings.TrimPrefix(operation, "operations/"), plane.log.read(t), b.log.read(t))

	names, err := prometheus.names(t.Context())
	must(t, err)
	for _, expression := range slices.Concat(dashboard(t), alerts(t)) {
		if _, err := prometheus.query(t.Context(), expression); err != nil {
			t.Errorf("%s: %v", expression, err)
		}
		for _, name := range metric.FindAllString(expression, -1) {
			if !slices.Contains(names, name) {
				t.Errorf("%s asks for %s, which nobody exports", expression, name)
			}
		}
	}
	documented(t, names)
}

var metric = regexp.MustCompile(`\b(umbra|grpc_server|etcd)_\w+\b`)

// untilTrue waits until the expression has a value.
func (p *prometheus) untilTrue(t *testing.T, expression string) {
	t.Helper()
	until(t, expression, func(ctx context.Context) error {
		samples, err := p.query(ctx, expression)
		if err == nil && len(samples) == 0 {
			err = errors.New("no sample")
		}
		return err
	})
}

// protect makes the pair p, as soon as both hosts are known.
func (p *plane) protect(t *testing.T) {
	t.Helper()
	until(t, "the server is not protected", func(ctx context.Context) error {
		_, err := umbrav1.NewProtectionServiceClient(p.api).CreateDRPair(ctx, pairRequest())
		return err
	})
}

func pairRequest() *umbrav1.CreateDRPairRequest {
	return &umbrav1.CreateDRPairRequest{DrPairId: "p", RequestId: "7d9b1c0a-4a43-4a6f-8f0f-6f5b2f7d0001", DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: "hosts/a", Server: "srv"},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/b", Server: "shadow"},
		Policy: &umbrav1.Policy{Interval: durationpb.New(time.Second), Retention: &umbrav1.RetentionPolicy{
			Rules: []*umbrav1.RetentionRule{{MaxAge: durationpb.New(time.Hour)}}, StoreBytesMax: 1 << 30,
		}, Verification: &umbrav1.VerificationPolicy{RunTime: durationpb.New(time.Second)}},
	}}
}

// alerts are the expressions of the rules.
func alerts(t *testing.T) []string {
	t.Helper()
	var expressions []string
	folded := regexp.MustCompile(`>-\n\s+`).ReplaceAllString(read(t, "alerts.yaml"), "")
	folded = regexp.MustCompile(`\n\s+(and|or) `).ReplaceAllString(folded, " $1 ")
	for _, found := range regexp.MustCompile(`(?m)^\s+expr: (.*)$`).FindAllStringSubmatch(folded, -1) {
		expressions = append(expressions, found[1])
	}
	return expressions
}

// dashboard is the expressions of all its panels, for all pairs.
func dashboard(t *testing.T) []string {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal([]byte(read(t, "dashboard.json")), &board))
	var expressions []string
	for _, panel := range board.Panels {
		if len(panel.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			expressions = append(expressions, strings.NewReplacer("$pair", ".*", "$__rate_interval", "1m").Replace(target.Expr))
		}
	}
	return expressions
}

// documented sees to it that the table of docs/monitoring.md has exactly what is exported.
func documented(t *testing.T, names []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/monitoring.md")
	must(t, err)
	exported := map[string]bool{}
	for _, name := range names {
		if strings.HasPrefix(name, "umbra_") {
			exported[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")] = true
		}
	}
	described := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(umbra_\\w+)`").FindAllStringSubmatch(string(page), -1) {
		described[row[1]] = true
	}
	if fmt.Sprint(exported) != fmt.Sprint(described) {
		t.Errorf("exported is\n%v\ndescribed is\n%v", exported, described)
	}
}
