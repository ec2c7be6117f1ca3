package main

import (
	"io"
	"net/http"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestBothEndsOfAReplicationStreamCountIt(t *testing.T) {
	s := startSite(t)
	a, b := s.newDaemon(t, "a"), s.newDaemon(t, "b")
	for _, d := range []*daemon{a, b} {
		d.flags.Metrics = freeAddress(t)
		d.live(t, s.token(t, string(d.flags.HostID)))
	}
	a.addServer(t)
	s.protect(t, "p", "a", "b")
	s.newPoint(t, "p")
	for _, want := range []struct {
		of             *daemon
		metric, method string
	}{
		{a, "grpc_client_msg_sent_total", "Replicate"},
		{b, "grpc_server_msg_received_total", "Replicate"},
		{a, "grpc_client_msg_sent_total", "Session"},
		{b, "grpc_client_msg_sent_total", "Session"},
	} {
		if n := counted(scrape(t, want.of), want.metric, want.method); n == 0 {
			t.Errorf("host %s counts no %s of %s", want.of.flags.HostID, want.metric, want.method)
		}
	}
	if n := counted(scrape(t, a), "grpc_server_started_total", "Replicate"); n != 0 {
		t.Errorf("the main host counts %v streams to it", n)
	}
}

// scrape reads what Prometheus would.
func scrape(t *testing.T, d *daemon) map[string]*dto.MetricFamily {
	t.Helper()
	request, err := http.NewRequestWithContext(soon(t), http.MethodGet, "http://"+d.flags.Metrics+"/metrics", http.NoBody)
	must(t, err)
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(answer.Body, 16<<20))
	must(t, err)
	return families
}

// counted is the counter's value for that method.
func counted(families map[string]*dto.MetricFamily, name, method string) (total float64) {
	for _, metric := range families[name].GetMetric() {
		for _, label := range metric.GetLabel() {
			if label.GetName() == "grpc_method" && label.GetValue() == method {
				total += metric.GetCounter().GetValue()
			}
		}
	}
	return total
}
