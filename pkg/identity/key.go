package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// rsaBitsMin is the least that is taken for a key of a certificate.
const rsaBitsMin = 2048

// Key is a part's private key. It stays where it was made.
type Key struct{ signer crypto.Signer }

// NewKey makes a key.
func NewKey() (*Key, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return &Key{key}, nil
}

// ParseKey reads a key that PEM made.
func ParseKey(data []byte) (*Key, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("reading a key: it is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("reading a key: it cannot sign")
	}
	return &Key{signer}, nil
}

// PEM is the key as it is kept. It is a secret.
func (k *Key) PEM() ([]byte, error) { return keyPEM(k.signer) }

// Request is a certificate signing request, PEM. It says no name: the authority knows which one the holder has.
func (k *Key) Request() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.signer)
	if err != nil {
		return nil, fmt.Errorf("making a certificate signing request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// Credentials joins the key with the chain and the bundle, PEM, that the authority has answered with.
func (k *Key) Credentials(chain, bundle []byte) (*Credentials, error) {
	key, err := k.PEM()
	if err != nil {
		return nil, err
	}
	return ParseCredentials(chain, key, bundle)
}

// RequestHash is the SHA-256 of the key in a request: by it the same holder is known again.
func RequestHash(request []byte) ([sha256.Size]byte, error) {
	key, err := requestedKey(request)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("encoding a public key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// requestedKey is the public key of a request whose maker holds the private one.
func requestedKey(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("reading a certificate signing request: it is not PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("reading a certificate signing request: %w", err)
	}
	switch key := request.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P224() {
			return nil, errors.New("the key's curve P-224 is too weak")
		}
		return key, nil
	case ed25519.PublicKey:
		return key, nil
	case *rsa.PublicKey:
		if key.N.BitLen() < rsaBitsMin {
			return nil, fmt.Errorf("an RSA key of %d bits is too short; at least %d are needed", key.N.BitLen(), rsaBitsMin)
		}
		return key, nil
	default:
		return nil, fmt.Errorf("keys of type %T are not certified", key)
	}
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
