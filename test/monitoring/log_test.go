package monitoring_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// lines keeps what a daemon logs.
type lines struct {
	mu  sync.Mutex
	all [][]byte
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, bytes.Clone(line))
	return len(line), nil
}

// read decodes what has been logged.
func (l *lines) read(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var read []map[string]any
	for _, line := range l.all {
		var said map[string]any
		if err := json.Unmarshal(line, &said); err != nil {
			t.Errorf("%q is not JSON: %v", line, err)
			continue
		}
		read = append(read, said)
	}
	return read
}

// failover fails the pair over to its newest point, and waits for the end.
func (p *plane) failover(t *testing.T) string {
	t.Helper()
	client := umbrav1.NewFailoverServiceClient(p.api)
	points, err := client.ListRecoveryPoints(t.Context(), &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/p"})
	must(t, err)
	begun, err := client.Failover(t.Context(), &umbrav1.FailoverRequest{
		Name: "drPairs/p", RecoveryPoint: points.GetRecoveryPoints()[0].GetName(), RequestId: "7d9b1c0a-4a43-4a6f-8f0f-6f5b2f7d0002",
	})
	must(t, err)
	return begun.GetOperation().GetName()
}

// logged sees to it that every line of a failover says which pair, epoch and operation it is about.
func logged(t *testing.T, operation string, planes, shadow []map[string]any) {
	t.Helper()
	var told []string
	for _, line := range slices.Concat(planes, shadow) {
		message, _ := line["msg"].(string)
		if line["epoch"] != 2.0 && message != "step begins" && message != "the shadow server runs" {
			continue
		}
		told = append(told, message)
		if line["pair"] != "p" || line["epoch"] != 2.0 {
			t.Errorf("a line does not say what it is about: %v", line)
		}
		if line["operation"] != operation {
			t.Errorf("a line does not name operation %s: %v", operation, line)
		}
	}
	for _, message := range []string{"pair state changed", "step begins", "the shadow server runs", "shadow follows a new spec"} {
		if !slices.Contains(told, message) {
			t.Errorf("%q is not logged; logged is %v", message, told)
		}
	}
}
