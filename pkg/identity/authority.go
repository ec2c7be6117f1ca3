package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strconv"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// backdate lets a certificate be used at once on a machine whose clock is behind by less than this.
	backdate = 10 * time.Minute
)

// Authority signs the certificates of one installation. It is safe for concurrent use.
type Authority struct {
	certs []*x509.Certificate // the first signs; the others are trusted as well, for a change of authority
	key   crypto.Signer
}

// NewAuthority makes an authority.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	template, err := template(now, now.Add(authorityLife))
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: "Umbra authority"}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.URIs = []*url.URL{trustDomain.ID().URL()}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	return &Authority{certs: []*x509.Certificate{cert}, key: key}, nil
}

// ParseAuthority reads an authority from PEM: its certificate, then further ones that are trusted as well, and its key.
func ParseAuthority(certs, key []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(certs, key)
	if err != nil {
		return nil, fmt.Errorf("reading the authority's certificate and key: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the authority's key cannot sign")
	}
	authority := &Authority{key: signer}
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading the authority's certificates: %w", err)
		}
		if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
			return nil, fmt.Errorf("the certificate %q is not one of an authority", cert.Subject)
		}
		authority.certs = append(authority.certs, cert)
	}
	return authority, nil
}

// PEM is what ParseAuthority reads. The key is a secret.
func (a *Authority) PEM() (certs, key []byte, err error) {
	key, err = keyPEM(a.key)
	return a.Bundle(), key, err
}

// Bundle is the certificates that every part trusts, PEM.
func (a *Authority) Bundle() []byte { return certsPEM(a.certs) }

// Fingerprint is the SHA-256 of the signing certificate, by which a first contact knows it.
func (a *Authority) Fingerprint() [sha256.Size]byte { return sha256.Sum256(a.certs[0].Raw) }

// Grant is what a certificate says.
type Grant struct {
	ID         ID
	Generation uint64
	Life       time.Duration
	// Names are host names and addresses, for callers that check them, such as grpcurl. The parts themselves check the ID.
	Names []string
}

// Certify makes a certificate for the key that the request, PEM, was made with. It returns the chain, PEM: that
// certificate and the authority's. Of the request nothing counts but the key, which it proves to hold.
func (a *Authority) Certify(request []byte, grant Grant, now time.Time) (chain []byte, notAfter time.Time, err error) {
	key, err := requestedKey(request)
	if err != nil {
		return nil, time.Time{}, err
	}
	want, err := grant.ID.spiffe()
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("certifying %s: %w", grant.ID, err)
	}
	notAfter = now.Add(grant.Life)
	if end := a.certs[0].NotAfter; notAfter.After(end) {
		notAfter = end
	}
	template, err := template(now, notAfter)
	if err != nil {
		return nil, time.Time{}, err
	}
	template.Subject = pkix.Name{CommonName: grant.ID.Subject(), SerialNumber: strconv.FormatUint(grant.Generation, 10)}
	template.URIs = []*url.URL{want.URL()}
	for _, name := range grant.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certs[0], key, a.key)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("certifying %s: %w", grant.ID, err)
	}
	chain = pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})
	return append(chain, certsPEM(a.certs[:1])...), notAfter, nil
}

// Issue makes a key and credentials with it, for a part that lives in this process.
func (a *Authority) Issue(grant Grant, now time.Time) (*Credentials, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	request, err := key.Request()
	if err != nil {
		return nil, err
	}
	chain, _, err := a.Certify(request, grant, now)
	if err != nil {
		return nil, err
	}
	return key.Credentials(chain, a.Bundle())
}

func template(now, notAfter time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-backdate), NotAfter: notAfter}, nil
}

const certificateBlock = "CERTIFICATE"

func certsPEM(certs []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, cert := range certs {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: cert.Raw}))
	}
	return out.Bytes()
}
