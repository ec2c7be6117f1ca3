package metrics

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// records are pairs in memory and nothing behind them.
type records []drpair.Pair

func (r records) After(string) iter.Seq[store.Entry] {
	return func(yield func(store.Entry) bool) {
		for _, p := range r {
			if !yield(store.Entry{Record: drpair.Record{Pair: p}}) {
				return
			}
		}
	}
}

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

type still struct{}

func (still) Now() time.Time                            { return now }
func (still) Wait(context.Context, time.Duration) error { return nil }
func (still) NewTicker(d time.Duration) *time.Ticker    { return time.NewTicker(d) }

func pair(id string) drpair.Pair {
	rec := drpair.New(id, "uid-"+id, drpair.Main{Host: "a", Server: "srv-" + id}, drpair.Shadow{Host: "b"}, drpair.DefaultPolicy(), now.Add(-time.Hour))
	rec.Pair.State, rec.Pair.HasPoint = drpair.Replicating, true
	return rec.Pair
}

func report(hosts *observed.Hosts, id string, newest time.Time) {
	hosts.SetReport("a", 1, &umbrav1.AssignmentReport{DrPair: id, Role: &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{
		Progress: &umbrav1.Progress{TotalBytes: 300, DoneBytes: 100},
	}}}, now)
	hosts.SetReport("b", 1, &umbrav1.AssignmentReport{DrPair: id, Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{
		NewestRecoveryPointTime: timestamppb.New(newest), RecoveryPointCount: 7, StoreBytes: 4096,
		Conditions: []*umbrav1.Condition{{Type: "ReadyForFailover", Status: umbrav1.ConditionStatus_CONDITION_STATUS_TRUE}},
	}}}, now)
}

func site() *observed.Hosts {
	hosts := observed.New()
	for _, id := range []string{"a", "b"} {
		hosts.Connect(id, 1, "cp", now)
	}
	hosts.SetInventory("b", 1, &umbrav1.Host{Capacity: &umbrav1.HostCapacity{StoreBytes: 1000, StoreFreeBytes: 250}}, now)
	return hosts
}

func TestAPairIsShownAsTheAPIShowsIt(t *testing.T) {
	hosts := site()
	report(hosts, "p", now.Add(-20*time.Second))
	p := pair("p")
	p.Policy.StoreBytesMax = 9000
	expected := `
umbra_host_connected{host="a"} 1
umbra_host_connected{host="b"} 1
umbra_host_report_timestamp_seconds{host="a"} 1.777896e+09
umbra_host_report_timestamp_seconds{host="b"} 1.777896e+09
umbra_host_store_free_bytes{host="b"} 250
umbra_host_store_size_bytes{host="b"} 1000
umbra_pair_condition{condition="Fenced",pair="p"} 0
umbra_pair_condition{condition="Protected",pair="p"} 1
umbra_pair_condition{condition="ReadyForFailover",pair="p"} 1
umbra_pair_info{main_host="a",pair="p",server="srv-p",shadow_host="b"} 1
umbra_pair_interval_seconds{pair="p"} 15
umbra_pair_newest_recovery_point_timestamp_seconds{pair="p"} 1.77789598e+09
umbra_pair_recovery_points{pair="p"} 7
umbra_pair_rpo_seconds{pair="p"} 20
umbra_pair_state{pair="p",state="REPLICATING"} 1
umbra_pair_store_bytes{pair="p"} 4096
umbra_pair_store_limit_bytes{pair="p"} 9000
umbra_pair_sync_remaining_bytes{pair="p"} 200
`
	if shown := scrape(t, records{p}, hosts); shown != strings.TrimPrefix(expected, "\n") {
		t.Errorf("shown is:\n%s", shown)
	}
}

func TestWhatAPairIsNotIsNotShown(t *testing.T) {
	hosts := site()
	report(hosts, "p", now.Add(-time.Minute))
	p := pair("p")
	p.State, p.Epoch, p.Fence = drpair.FailedOver, 2, drpair.Fence{State: drpair.FenceConfirmed}
	shown := scrape(t, records{p}, hosts)
	for _, not := range []string{"umbra_pair_rpo_seconds", "umbra_pair_failure", "umbra_pair_sync_remaining_bytes"} {
		if strings.Contains(shown, not) {
			t.Errorf("a pair that has failed over shows %s:\n%s", not, shown)
		}
	}
	for _, line := range []string{`{condition="Fenced",pair="p"} 1`, `{condition="ReadyForFailover",pair="p"} 0`, `{pair="p",state="FAILED_OVER"} 1`} {
		if !strings.Contains(shown, line) {
			t.Errorf("%s is missing:\n%s", line, shown)
		}
	}
	p.State, p.Failure = drpair.ReplicationError, &drpair.Failure{Reason: drpair.ReasonMainUnreachable, Side: drpair.SideMain}
	if shown := scrape(t, records{p}, hosts); !strings.Contains(shown, `umbra_pair_failure{pair="p",reason="MAIN_HOST_UNREACHABLE",side="MAIN"} 1`) {
		t.Errorf("the failure is missing:\n%s", shown)
	}
}

func TestSeriesGoWithTheirPair(t *testing.T) {
	hosts := site()
	report(hosts, "p", now)
	report(hosts, "q", now)
	if shown := scrape(t, records{pair("p"), pair("q")}, hosts); !strings.Contains(shown, `pair="p"`) {
		t.Fatalf("the pair is not shown:\n%s", shown)
	}
	if shown := scrape(t, records{pair("q")}, hosts); strings.Contains(shown, `pair="p"`) {
		t.Errorf("a pair that is gone is shown:\n%s", shown)
	}
}

// scrape is what Prometheus would get, without comments.
func scrape(t *testing.T, pairs Pairs, hosts *observed.Hosts) string {
	t.Helper()
	collector := New(pairs, hosts, still{})
	if problems, err := testutil.CollectAndLint(collector); err != nil || len(problems) > 0 {
		t.Errorf("problems %v, error %v", problems, err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	lines := slices.DeleteFunc(strings.SplitAfter(answer.Body.String(), "\n"), func(line string) bool { return strings.HasPrefix(line, "#") })
	return strings.Join(lines, "")
}

// BenchmarkScrapeOf100kPairs is what a scrape of the largest control plane costs.
func BenchmarkScrapeOf100kPairs(b *testing.B) {
	const many = 100_000
	hosts, pairs := site(), make(records, 0, many)
	for i := range many {
		id := fmt.Sprintf("pair-%06d", i)
		report(hosts, id, now)
		pairs = append(pairs, pair(id))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(New(pairs, hosts, still{}))
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
	for b.Loop() {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
		size, _ := io.Copy(io.Discard, answer.Body) // memory cannot fail
		b.ReportMetric(float64(size), "bytes/scrape")
	}
}
