//go:build !race

package chaos_test

var raceFlag []string
