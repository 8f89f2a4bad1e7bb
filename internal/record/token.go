package record

import "crypto/rand"

// KeyPrefix begins the names of all records.
const KeyPrefix = "idempotent:"

// redisName is the name of an operation in Redis: of its record and of its channel. A namespace
// has no colon, so the name can be read one way only.
func Name(namespace, key string) string { return KeyPrefix + namespace + ":" + key }

// A token names one claim. No two claims share one.
type Token [16]byte

func NewToken() (t Token) {
	rand.Read(t[:]) // never fails, see crypto/rand
	return t
}
