package monitoring_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// deployed is where the rules are that are tried, and the dashboard.
const deployed = "../../deploy/monitoring"

// prometheus is a real one.
type prometheus struct {
	address string
	client  *http.Client
}

// startPrometheus has it scrape the targets, and fire alerts at once that the rules let wait.
func startPrometheus(t *testing.T, planes, hosts []string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	rules, err := os.ReadFile(filepath.Join(deployed, "alerts.yaml"))
	must(t, err)
	rules = regexp.MustCompile(`(?m)^\s+for: .*$`).ReplaceAll(rules, nil)
	must(t, os.WriteFile(filepath.Join(dir, "alerts.yaml"), rules, 0o600))
	config := fmt.Sprintf("global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}\nrule_files: [alerts.yaml]\nscrape_configs:\n"+
		"  - {job_name: umbra-controlplane, static_configs: [{targets: ['%s']}]}\n  - {job_name: umbra-hostd, static_configs: [{targets: ['%s']}]}\n",
		strings.Join(planes, "', '"), strings.Join(hosts, "', '"))
	must(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	for range startsMax {
		if p := tryPrometheus(t, dir); p != nil {
			return p
		}
	}
	t.Fatal("Prometheus does not start")
	return nil
}

// startsMax is how often it is started: somebody else may be quicker to take an address that was free.
const startsMax = 3

// tryPrometheus returns nil when it has ended at once.
func tryPrometheus(t *testing.T, dir string) *prometheus {
	t.Helper()
	p := &prometheus{address: freeAddress(t), client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	ended := start(t, exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+p.address), func(line []byte) { t.Logf("prometheus: %s", line) })
	until(t, "Prometheus is not ready", func(ctx context.Context) error {
		select {
		case <-ended:
			p = nil
			return nil
		default:
		}
		_, err := p.query(ctx, "vector(1)")
		return err
	})
	return p
}

// sample is one series with its value, as the API of Prometheus has it.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

// query asks for the value of an expression now. An expression that is not valid is an error.
func (p *prometheus) query(ctx context.Context, expression string) ([]sample, error) {
	var data struct{ Result []sample }
	err := p.get(ctx, "query?query="+url.QueryEscape(expression), &data)
	return data.Result, err
}

// names are those of all metrics that it has seen.
func (p *prometheus) names(ctx context.Context) ([]string, error) {
	var names []string
	err := p.get(ctx, "label/__name__/values", &names)
	return names, err
}

func (p *prometheus) get(ctx context.Context, what string, data any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/api/v1/"+what, nil)
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("code %d: %w", response.StatusCode, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", what, answer.Error)
	}
	return nil
}
