// Package telemetry is how a daemon shows what it does to those who look after it: metrics for Prometheus, traces for
// OpenTelemetry, and a log whose lines can be found again. It sets these up and says their names; what is measured is
// measured where it happens.
package telemetry
