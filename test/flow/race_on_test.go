//go:build race

package flow_test

var raceFlag = []string{"-race"}
