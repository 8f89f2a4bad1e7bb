package record

import "crypto/rand"

// KeyPrefix begins the names of all records.
const KeyPrefix = "idempotent:"

// Name returns the name of a key's record and channel in Redis. A namespace has no colon, so two pairs of
// namespace and key never share a name.
func Name(namespace, key string) string { return KeyPrefix + namespace + ":" + key }

// A Token identifies one claim. No two claims share one, so it fences commits, renewals and releases.
type Token [16]byte

// NewToken returns a random token.
func NewToken() (t Token) {
	rand.Read(t[:]) // never fails, see crypto/rand
	return t
}
