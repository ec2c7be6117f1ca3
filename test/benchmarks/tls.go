package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab"
)

const (
	tlsExportPort = 10810
	tlsValid      = 24 * time.Hour
)

// tlsSite gives QEMU's NBD server and its client certificates of their own, of the kind that Umbra's hosts have.
type tlsSite struct {
	*site
	authority    *x509.Certificate
	authorityKey *ecdsa.PrivateKey
}

// prepareTLS makes the certificates and gives the server's QEMU its own.
func (s *site) prepareTLS(ctx context.Context, server string) (*tlsSite, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &tlsSite{site: s, authorityKey: key, authority: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "benchmark"}, NotBefore: now.Add(-tlsValid), NotAfter: now.Add(tlsValid),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	for _, end := range []string{"server", "client"} {
		if err := t.writeEnd(end); err != nil {
			return nil, fmt.Errorf("make the %s's certificate: %w", end, err)
		}
	}
	return t, s.tellQEMU(ctx, server,
		fmt.Sprintf(`{"execute":"object-add","arguments":{"qom-type":"tls-creds-x509","id":"tls0","dir":%q,"endpoint":"server","verify-peer":true}}`, t.folder("server")))
}

func (t *tlsSite) folder(end string) string { return filepath.Join(t.Dir(), "tls-"+end) }

// writeEnd writes an end's files by the names that QEMU and nbdcopy look for.
func (t *tlsSite) writeEnd(end string) error {
	if err := os.MkdirAll(t.folder(end), 0o755); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	authority, err := x509.CreateCertificate(rand.Reader, t.authority, t.authority, &t.authorityKey.PublicKey, t.authorityKey)
	if err != nil {
		return err
	}
	own, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: end}, NotBefore: t.authority.NotBefore, NotAfter: t.authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.ParseIP(lab.MainAddress)},
	}, t.authority, &key.PublicKey, t.authorityKey)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"ca-cert.pem": {Type: "CERTIFICATE", Bytes: authority}, end + "-cert.pem": {Type: "CERTIFICATE", Bytes: own},
		end + "-key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		// The lab's QEMU has a user of its own.
		if err := os.WriteFile(filepath.Join(t.folder(end), name), pem.EncodeToMemory(block), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// export has the server's QEMU serve its disk over TLS. QEMU has one NBD server, which a backup job needs too: stop it afterwards.
func (t *tlsSite) export(ctx context.Context, server string) (stop func() error, err error) {
	err = t.tellQEMU(ctx, server,
		fmt.Sprintf(`{"execute":"nbd-server-start","arguments":{"addr":{"type":"inet","data":{"host":"%s","port":"%d"}},"tls-creds":"tls0"}}`, lab.MainAddress, tlsExportPort),
		`{"execute":"block-export-add","arguments":{"type":"nbd","id":"tls","node-name":"libvirt-1-format","name":"vda","writable":false}}`)
	return func() error { return t.tellQEMU(ctx, server, `{"execute":"nbd-server-stop"}`) }, err
}

func (s *site) tellQEMU(ctx context.Context, server string, orders ...string) error {
	for _, order := range orders {
		if _, err := s.Main.Virsh(ctx, "qemu-monitor-command", server, order); err != nil {
			return err
		}
	}
	return nil
}
