package flow_test

import (
	"bytes"
	"encoding/json"
	"os"
)

// logsSayWhatTheyAreAbout sees to it that every line of the daemons in which the pair appears names it where it belongs, and, since the
// pair's first operation, that operation or a later one, and the trace.
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
				Method, Pair, Operation string
				TraceID                 string `json:"trace_id"`
			}
			if err := json.Unmarshal(line, &said); err != nil {
				w.t.Errorf("%s: %q is not JSON: %v", path, line, err)
				continue
			}
			isCall := said.Method != "" // its log has what the caller says, and those that change nothing have no trace
			if said.Pair != pairID && !isCall && bytes.Contains(line, []byte(pairID)) {
				w.t.Errorf("%s: this line does not say which pair it is about: %s", path, line)
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
