package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/umbra-dr/umbra/pkg/clock"
)

const (
	issuerTimeout = 10 * time.Second
	// issuerRetry is the least time between two attempts to reach an issuer that has not been reached yet.
	issuerRetry = 5 * time.Second
)

// OIDCFlags say whose bearer tokens count.
type OIDCFlags struct {
	Issuer     string `help:"OpenID Connect issuer whose bearer tokens count. https, or http on loopback." placeholder:"URL"`
	Audience   string `help:"Audience that tokens must be for." placeholder:"NAME"`
	RolesClaim string `help:"Claim that holds the caller's roles; dots lead into nested claims." default:"roles" placeholder:"NAME"`
	RolePrefix string `help:"What stands before viewer, operator or administrator in that claim." default:"umbra-" placeholder:"PREFIX"`
	CA         string `name:"ca" help:"Authority of the issuer's server, PEM. Without it, the system's." placeholder:"FILE"`
}

// OIDC judges tokens of an OpenID Connect issuer. It is safe for concurrent use. The issuer need not be there when the
// control plane starts.
type OIDC struct {
	flags  OIDCFlags
	clock  clock.Clock
	client *http.Client

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier
	tried    time.Time
	failed   error
}

// NewOIDC judges tokens as the flags say. It returns nil when they name no issuer.
func NewOIDC(flags OIDCFlags, clock clock.Clock) (*OIDC, error) {
	if flags.Issuer == "" {
		return nil, nil //nolint:nilnil // no issuer is no error, and no OIDC
	}
	issuer, err := url.Parse(flags.Issuer)
	if err != nil {
		return nil, fmt.Errorf("reading the OIDC issuer's address: %w", err)
	}
	ip := net.ParseIP(issuer.Hostname())
	if issuer.Scheme != "https" && (issuer.Scheme != "http" || ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("the OIDC issuer %s is reached neither by https nor on loopback", flags.Issuer)
	}
	if flags.Audience == "" {
		return nil, errors.New("an OIDC issuer needs an audience: without one, tokens for other services would count")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12} // issuers are not ours
	if flags.CA != "" {
		certs, err := os.ReadFile(flags.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the OIDC issuer's authority: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(certs) {
			return nil, fmt.Errorf("%s holds no certificate", flags.CA)
		}
	}
	transport := &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment}
	return &OIDC{flags: flags, clock: clock, client: &http.Client{Transport: transport, Timeout: issuerTimeout}}, nil
}

// Close ends connections to the issuer that are idle.
func (o *OIDC) Close() { o.client.CloseIdleConnections() }

// Verify tells whose token it is. A token without a role of ours is a caller that may do nothing.
func (o *OIDC) Verify(ctx context.Context, raw string) (Caller, error) {
	verifier, err := o.reach()
	if err != nil {
		return nobody, err
	}
	token, err := verifier.Verify(oidc.ClientContext(ctx, o.client), raw)
	if err != nil {
		return nobody, fmt.Errorf("the bearer token is not valid: %w", err)
	}
	var claims map[string]json.RawMessage
	if err := token.Claims(&claims); err != nil {
		return nobody, fmt.Errorf("reading the bearer token's claims: %w", err)
	}
	return Caller{Kind: Person, Name: "oidc:" + token.Subject, Roles: o.roles(claims)}, nil
}

// reach finds out about the issuer, once; while that fails, at a beat.
func (o *OIDC) reach() (*oidc.IDTokenVerifier, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.verifier != nil {
		return o.verifier, nil
	}
	now := o.clock.Now()
	if o.failed != nil && now.Before(o.tried.Add(issuerRetry)) {
		return nil, o.failed
	}
	o.tried = now
	// The provider keeps the context for as long as it lives: it reads keys with it. The client bounds each request.
	provider, err := oidc.NewProvider(oidc.ClientContext(context.Background(), o.client), o.flags.Issuer)
	if err != nil {
		o.failed = fmt.Errorf("the OIDC issuer cannot be reached: %w", err)
		return nil, o.failed
	}
	o.verifier = provider.Verifier(&oidc.Config{ClientID: o.flags.Audience, Now: o.clock.Now})
	return o.verifier, nil
}

func (o *OIDC) roles(claims map[string]json.RawMessage) []Role {
	path := strings.Split(o.flags.RolesClaim, ".")
	for _, part := range path[:len(path)-1] {
		var nested map[string]json.RawMessage
		if json.Unmarshal(claims[part], &nested) != nil {
			return nil
		}
		claims = nested
	}
	value := claims[path[len(path)-1]]
	var words []string
	if json.Unmarshal(value, &words) != nil {
		var one string
		if json.Unmarshal(value, &one) != nil {
			return nil
		}
		words = strings.Fields(one)
	}
	var roles []Role
	for _, word := range words {
		bare, ours := strings.CutPrefix(word, o.flags.RolePrefix)
		if role, known := ParseRole(bare); ours && known {
			roles = append(roles, role)
		}
	}
	return roles
}
