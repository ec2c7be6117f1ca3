package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"

	"github.com/umbra-dr/umbra/pkg/lab"
)

const (
	metricsAddress = "127.0.0.1:9464" // of hostd, on each of the lab's hosts
	metricsURL     = "http://" + metricsAddress + "/metrics"
)

// fetch copies what a URL gives to the output: run on a host, it reads that host's metrics.
func fetch(args []string) error {
	if len(args) != 1 {
		return errors.New("fetch takes a URL")
	}
	answer, err := http.Get(args[0])
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, answer.Body)
	return errors.Join(err, answer.Body.Close())
}

// cycles says how many increments the host's hostd has completed since it started, and how many seconds they took together: each
// from when its turn came to when the point was durable on the other host and the older checkpoint deleted.
func cycles(ctx context.Context, on *lab.Host) (count, seconds float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	text, err := finish(on.Command(ctx, self, "fetch", metricsURL))
	if err != nil {
		return 0, 0, err
	}
	count, err = metric(text, "count")
	if err != nil {
		return 0, 0, err
	}
	seconds, err = metric(text, "sum")
	return count, seconds, err
}

func metric(text, of string) (float64, error) {
	name := `umbra_replication_cycle_duration_seconds_` + of + `{kind="increment",outcome="done"}`
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("hostd shows no %s", name)
	}
	return strconv.ParseFloat(found[1], 64)
}
