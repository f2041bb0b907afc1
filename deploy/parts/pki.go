package parts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pki is the paths of a small authority's files, all PEM: its certificate, and certificates with keys that it signed.
type pki struct {
	ca                    string
	serverCert, serverKey string // of 127.0.0.1 and localhost
	clientCert, clientKey string
}

// newPKI makes an authority, with files in dir that are good for a day.
func newPKI(dir string) (pki, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return pki{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pki{}, err
	}
	authority := certificate(1, "parts authority")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &key.PublicKey, key)
	if err != nil {
		return pki{}, err
	}
	p := pki{ca: filepath.Join(dir, "ca.pem")}
	if err := writePEM(p.ca, "CERTIFICATE", der); err != nil {
		return pki{}, err
	}
	server := certificate(2, "localhost")
	server.DNSNames, server.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	client := certificate(3, "micromegas")
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	sign := func(name string, c *x509.Certificate) (cert, keyFile string, err error) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return "", "", err
		}
		der, err := x509.CreateCertificate(rand.Reader, c, authority, &own.PublicKey, key)
		if err != nil {
			return "", "", err
		}
		secret, err := x509.MarshalECPrivateKey(own)
		if err != nil {
			return "", "", err
		}
		cert, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		return cert, keyFile, errors.Join(writePEM(cert, "CERTIFICATE", der), writePEM(keyFile, "EC PRIVATE KEY", secret))
	}
	if p.serverCert, p.serverKey, err = sign("server", server); err != nil {
		return pki{}, err
	}
	if p.clientCert, p.clientKey, err = sign("client", client); err != nil {
		return pki{}, err
	}
	return p, nil
}

func certificate(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func writePEM(path, kind string, der []byte) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
