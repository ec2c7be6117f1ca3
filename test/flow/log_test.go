package flow_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
)

// ofNoPair are the lines that a landscape with one pair logs and that are not about it.
var ofNoPair = []string{
	// the control plane
	"an authority is made", "credentials of a first administrator are made", "this control plane works", "serving the API",
	"serving hosts and clients", "embedded etcd", "host enrolled", "host connected", "host disconnected",
	// hostd
	"enrolled", "session with the control plane", "no session with the control plane, replication goes on without; dialling again",
	"taking in replication",
}

// logsSayWhatTheyAreAbout sees to it that every line of the daemons names the pair, unless it is known to be about no pair, and every line
// since the pair's first operation that operation or a later one, and the trace.
func (w *world) logsSayWhatTheyAreAbout() {
	w.t.Helper()
	for _, path := range []string{w.ControlPlane.LogPath(), w.Main.Hostd.LogPath(), w.Shadow.Hostd.LogPath()} {
		text, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		inOperation := false
		for line := range bytes.Lines(text) {
			var said struct {
				Msg, Method, Pair, Operation string
				TraceID                      string `json:"trace_id"`
			}
			if err := json.Unmarshal(line, &said); err != nil {
				w.t.Errorf("%s: %q is not JSON: %v", path, line, err)
				continue
			}
			isCall := said.Method != "" // its log has what the caller says, and those that change nothing have no trace
			if said.Pair != pairID && !isCall && !slices.Contains(ofNoPair, said.Msg) {
				w.t.Errorf("%s: this line names no pair: %s", path, line)
			}
			if said.Pair == "" || isCall {
				continue
			}
			inOperation = inOperation || said.Operation != ""
			if inOperation && said.Operation == "" {
				w.t.Errorf("%s: this line names no operation: %s", path, line)
			}
			if said.TraceID == "" && inOperation {
				w.t.Errorf("%s: this line names no trace: %s", path, line)
			}
		}
		if !inOperation && path != w.Main.Hostd.LogPath() { // that host may be dead
			w.t.Errorf("%s has no line of an operation", path)
		}
	}
}
