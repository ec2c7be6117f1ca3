package telemetry

import (
	"runtime"
	"runtime/debug"
	"slices"
)

// version is what make builds, put here by the linker.
var version string

// Build is what a process was built from. What is not known is "unknown".
type Build struct{ Version, Revision, Go string }

// ReadBuild reads what make and the Go command have put into the program.
func ReadBuild() Build {
	build := Build{Version: "unknown", Revision: "unknown", Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			build.Version = info.Main.Version
		}
		at := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" })
		if at >= 0 {
			build.Revision = info.Settings[at].Value
		}
	}
	if version != "" {
		build.Version = version
	}
	return build
}
