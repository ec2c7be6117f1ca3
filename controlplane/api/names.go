package api

import (
	"regexp"
	"strings"
)

// Prefixes of resource names.
const (
	pairPrefix      = "drPairs/"
	hostPrefix      = "hosts/"
	operationPrefix = "operations/"
	pointInfix      = "/recoveryPoints/"
)

// Types of resources in ResourceInfo.
const (
	typePair      = "umbra.v1.DRPair"
	typeHost      = "umbra.v1.Host"
	typeServer    = "umbra.v1.Server"
	typeOperation = "umbra.v1.Operation"
	typePoint     = "umbra.v1.RecoveryPoint"
)

var (
	resourceID = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	pointID    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

func pairName(id string) string           { return pairPrefix + id }
func hostName(id string) string           { return hostPrefix + id }
func serverName(host, name string) string { return hostName(host) + "/servers/" + name }

func operationName(id string) string {
	if id == "" {
		return ""
	}
	return operationPrefix + id
}

func pointName(pair, id string) string {
	if id == "" {
		return ""
	}
	return pairName(pair) + pointInfix + id
}

// parseName returns the id of a name of the form prefix{id}, or an error that names the field.
func parseName(field, prefix, name string) (string, error) {
	id, ok := strings.CutPrefix(name, prefix)
	if !ok || !resourceID.MatchString(id) {
		return "", invalid(field, "must be %q and an id of lower-case letters, digits and hyphens, at most 63 of them", prefix)
	}
	return id, nil
}

// parsePoint returns the id of a recovery point of the pair, or an error that names the field.
func parsePoint(field, pair, name string) (string, error) {
	of, id, ok := strings.Cut(name, pointInfix)
	switch {
	case !ok || !pointID.MatchString(id):
		return "", invalid(field, `must be "drPairs/{dr_pair}/recoveryPoints/{recovery_point}"`)
	case of != pairName(pair):
		return "", invalid(field, "must be a recovery point of %s", pairName(pair))
	default:
		return id, nil
	}
}
