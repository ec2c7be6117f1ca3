package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
)

// issuer is an OpenID Connect issuer on this machine.
type issuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key := newKey(t)
	offered := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "k", Algorithm: oidc.ES256}}, Algorithms: []string{oidc.ES256}}
	server := httptest.NewServer(offered)
	t.Cleanup(server.Close)
	offered.SetIssuer(server.URL)
	return &issuer{server, key}
}

// claims are those of a token that is good for an hour from now, and others.
func (i *issuer) claims(others string) string {
	return fmt.Sprintf(`{"iss": %q, "aud": "umbra", "sub": "ann", "iat": %d, "exp": %d%s}`, i.URL, now.Unix(), now.Add(time.Hour).Unix(), others)
}

func (i *issuer) token(others string) string {
	return oidctest.SignIDToken(i.key, "k", oidc.ES256, i.claims(others))
}

func newOIDC(t *testing.T, flags OIDCFlags, at *stopped) *OIDC {
	t.Helper()
	flags.Audience, flags.RolePrefix = "umbra", "umbra-"
	if flags.RolesClaim == "" {
		flags.RolesClaim = "roles"
	}
	made, err := NewOIDC(flags, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made
}

func TestATokenCountsWhenItsIssuerMadeItForUsAndItHasNotEnded(t *testing.T) {
	i := newIssuer(t)
	at := &stopped{at: now}
	judge := newOIDC(t, OIDCFlags{Issuer: i.URL}, at)
	other := newIssuer(t)
	good := i.token(`, "roles": ["umbra-operator", "administrator", "umbra-king"]`)
	for name, c := range map[string]struct {
		token string
		after time.Duration
		ok    bool
	}{
		"good":               {good, 0, true},
		"about to end":       {good, time.Hour - time.Second, true},
		"ended":              {good, time.Hour + time.Second, false},
		"another audience":   {oidctest.SignIDToken(i.key, "k", oidc.ES256, `{"iss": "`+i.URL+`", "aud": "another", "sub": "ann", "exp": 4000000000}`), 0, false},
		"another issuer":     {other.token(""), 0, false},
		"another key":        {oidctest.SignIDToken(newKey(t), "k", oidc.ES256, i.claims("")), 0, false},
		"an unknown key":     {oidctest.SignIDToken(newKey(t), "l", oidc.ES256, i.claims("")), 0, false},
		"no signature":       {"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", 0, false},
		"no token":           {"operator", 0, false},
		"nothing":            {"", 0, false},
		"more after its end": {good + ".x", 0, false},
	} {
		at.at = now.Add(c.after)
		caller, err := judge.Verify(t.Context(), c.token)
		switch {
		case (err == nil) != c.ok:
			t.Errorf("%s: %v", name, err)
		case c.ok && (caller.Kind != Person || caller.Name != "oidc:ann" || !slices.Equal(caller.Roles, []Role{Operator})):
			t.Errorf("%s: %+v", name, caller)
		case !c.ok && len(caller.Roles) > 0:
			t.Errorf("%s: refused with roles %v", name, caller.Roles)
		}
	}
}

func TestRolesAreReadFromTheClaimThatIsNamed(t *testing.T) {
	i := newIssuer(t)
	for name, c := range map[string]struct {
		claim, others string
		want          []Role
	}{
		"a list":            {"roles", `, "roles": ["umbra-viewer", "umbra-operator"]`, []Role{Viewer, Operator}},
		"words in a string": {"scope", `, "scope": "openid umbra-viewer"`, []Role{Viewer}},
		"nested":            {"realm_access.roles", `, "realm_access": {"roles": ["umbra-administrator"]}`, []Role{Administrator}},
		"not there":         {"realm_access.roles", ``, nil},
		"not nested":        {"realm_access.roles", `, "realm_access": ["umbra-administrator"]`, nil},
		"no words":          {"roles", `, "roles": {"umbra-administrator": true}`, nil},
		"without prefix":    {"roles", `, "roles": ["administrator"]`, nil},
	} {
		judge := newOIDC(t, OIDCFlags{Issuer: i.URL, RolesClaim: c.claim}, &stopped{at: now})
		caller, err := judge.Verify(t.Context(), i.token(c.others))
		if err != nil || !slices.Equal(caller.Roles, c.want) {
			t.Errorf("%s: roles %v, error %v", name, caller.Roles, err)
		}
	}
}

func TestAnIssuerThatIsAwayIsTriedAgainAtABeat(t *testing.T) {
	i := newIssuer(t)
	var away atomic.Bool
	var asked atomic.Int32
	there := i.Config.Handler
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		there.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	there.(*oidctest.Server).SetIssuer(front.URL)
	i.URL = front.URL
	at := &stopped{at: now}
	judge := newOIDC(t, OIDCFlags{Issuer: front.URL}, at)
	token := i.token("")
	away.Store(true)
	for range 3 {
		if _, err := judge.Verify(t.Context(), token); err == nil || asked.Load() != 1 {
			t.Errorf("while the issuer is away: %v, after %d questions to it", err, asked.Load())
		}
	}
	away.Store(false)
	at.at = now.Add(issuerRetry)
	if _, err := judge.Verify(t.Context(), token); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestFlagsThatWouldLetStrangersInAreRefused(t *testing.T) {
	for name, flags := range map[string]OIDCFlags{
		"plain text on the network": {Issuer: "http://issuer.example", Audience: "umbra"},
		"no audience":               {Issuer: "https://issuer.example"},
		"no such authority":         {Issuer: "https://issuer.example", Audience: "umbra", CA: "/nowhere"},
	} {
		if _, err := NewOIDC(flags, &stopped{at: now}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if made, err := NewOIDC(OIDCFlags{}, &stopped{at: now}); made != nil || err != nil {
		t.Errorf("without an issuer: %v, %v", made, err)
	}
}
