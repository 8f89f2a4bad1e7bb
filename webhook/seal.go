package webhook

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// A Seal encrypts payloads before they are stored, and decrypts them for handlers and operators. It is safe for
// concurrent use.
type Seal interface {
	// Seal returns an encryption of plain that Open opens with the same associated data only.
	Seal(plain, associated []byte) ([]byte, error)
	Open(sealed, associated []byte) ([]byte, error)
}

// AESGCM returns a Seal that uses AES-GCM with a random nonce (NIST SP 800-38D). The first key encrypts, all of them
// decrypt: to rotate keys, put the new one first, and remove the old one after the retention of bodies of dead letters.
// A key has 16, 24 or 32 bytes; use it for up to 2^32 events.
func AESGCM(keys ...[]byte) (Seal, error) {
	if len(keys) == 0 {
		return nil, errors.New("webhook: AESGCM: there are 0 keys; allowed: 1 or more")
	}
	s := make(aesSeal, len(keys))
	for i, key := range keys {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("webhook: AESGCM: key %d has %d bytes; allowed: 16, 24 or 32", i, len(key))
		}
		if s[i], err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
	}
	return s, nil
}

type aesSeal []cipher.AEAD

func (s aesSeal) Seal(plain, associated []byte) ([]byte, error) {
	nonce := make([]byte, s[0].NonceSize(), s[0].NonceSize()+len(plain)+s[0].Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return s[0].Seal(nonce, nonce, plain, associated), nil
}

func (s aesSeal) Open(sealed, associated []byte) ([]byte, error) {
	for _, gcm := range s {
		if n := gcm.NonceSize(); len(sealed) >= n {
			if plain, err := gcm.Open(nil, sealed[:n], sealed[n:], associated); err == nil {
				return plain, nil
			}
		}
	}
	return nil, errors.New("webhook: the payload does not open with any key")
}

// sealPayload returns the payload as one sealed body. The associated data is the event's key: a sealed body that was
// copied to another event does not open.
func sealPayload(s Seal, key string, p Payload) (Payload, error) {
	var plain []byte
	for _, part := range [][]byte{encodeHeader(p.Header), p.Body, p.Part} {
		plain = binary.AppendUvarint(plain, uint64(len(part)))
		plain = append(plain, part...)
	}
	if p.Part != nil {
		plain = append(plain, 1)
	}
	sealed, err := s.Seal(plain, []byte(key))
	if err != nil {
		return Payload{}, &sealError{err}
	}
	return Payload{Body: sealed, Sealed: true}, nil
}

// A sealError is an error of a Seal. Its text is fixed, because that of the cause may hold a payload.
type sealError struct{ cause error }

func (e *sealError) Error() string { return "webhook: WithSeal: the payload could not be sealed" }
func (e *sealError) Unwrap() error { return e.cause }

var errUnsealed = errors.New("webhook: the payload is sealed and cannot be opened")

// openPayload is the reverse of sealPayload. A payload that is not sealed comes back as it is.
func openPayload(s Seal, key string, p Payload) (Payload, error) {
	if !p.Sealed {
		return p, nil
	}
	if s == nil {
		return Payload{}, fmt.Errorf("%w: there is no WithSeal", errUnsealed)
	}
	plain, err := s.Open(p.Body, []byte(key))
	if err != nil {
		return Payload{}, errUnsealed
	}
	var parts [3][]byte
	for i := range parts {
		var ok bool
		if parts[i], plain, ok = cutBytes(plain); !ok {
			return Payload{}, errUnsealed
		}
	}
	header, err := decodeHeader(parts[0])
	if err != nil {
		return Payload{}, errUnsealed
	}
	open := Payload{Header: header, Body: parts[1]}
	if len(plain) == 1 {
		open.Part = parts[2]
	}
	return open, nil
}
