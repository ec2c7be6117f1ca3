package telemetry

import (
	"runtime"
	"runtime/debug"
	"slices"
)

// Build is what a process was built from. What is not known is "unknown".
type Build struct{ Version, Revision, Go string }

// ReadBuild reads what the Go command has put into the program.
func ReadBuild() Build {
	build := Build{Version: "unknown", Revision: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build
	}
	if info.Main.Version != "" {
		build.Version = info.Main.Version
	}
	at := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" })
	if at >= 0 {
		build.Revision = info.Settings[at].Value
	}
	return build
}
