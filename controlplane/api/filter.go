package api

import (
	"strings"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// filterTermsMax bounds the work of one comparison.
const filterTermsMax = 16

// filterTerm is one term of a filter: the pair's field must have the value.
type filterTerm struct {
	field func(drpair.Pair) string
	want  string
}

// filterFields are the fields that a filter can name.
var filterFields = map[string]func(drpair.Pair) string{
	"state":       func(p drpair.Pair) string { return string(p.State) },
	"main.host":   func(p drpair.Pair) string { return hostName(p.Main.Host) },
	"shadow.host": func(p drpair.Pair) string { return hostName(p.Shadow.Host) },
	"main.server": func(p drpair.Pair) string { return p.Main.Server },
}

// parseFilter reads terms "field = value" joined by " AND ". The empty filter lets every pair through.
func parseFilter(text string) ([]filterTerm, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var terms []filterTerm
	for part := range strings.SplitSeq(text, " AND ") {
		name, value, ok := strings.Cut(part, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		field := filterFields[name]
		switch {
		case !ok || value == "":
			return nil, invalid("filter", "%q is not a term of the form: field = value", strings.TrimSpace(part))
		case field == nil:
			return nil, invalid("filter", "%q is not a field to filter by; there are state, main.host, shadow.host and main.server", name)
		}
		if name == "state" {
			value = strings.TrimPrefix(value, statePrefix)
			if _, known := umbrav1.DRPairState_value[statePrefix+value]; !known {
				return nil, invalid("filter", "%q is not a state", value)
			}
		}
		if strings.HasSuffix(name, ".host") {
			if _, err := parseName("filter", hostPrefix, value); err != nil {
				return nil, err
			}
		}
		terms = append(terms, filterTerm{field: field, want: value})
	}
	if len(terms) > filterTermsMax {
		return nil, invalid("filter", "has more than %d terms", filterTermsMax)
	}
	return terms, nil
}

func matches(terms []filterTerm, p drpair.Pair) bool {
	for _, term := range terms {
		if term.field(p) != term.want {
			return false
		}
	}
	return true
}
