package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/idempotent-go/idempotent"
)

// A KeyFunc returns an event's own key, 1 to 128 bytes. Events with the same key are one event: one effect, however
// often it is delivered. They should name the same object, because an object's events share a lane of the store: the
// same key in two lanes is stored as two events, although its handler still runs once.
type KeyFunc func(source string, e Event) (string, error)

// ByID makes events with the same provider's id one event. It is the default, and right for providers that redeliver an
// event under its id, as all of the ready-made schemes do.
func ByID(source string, e Event) (string, error) {
	if e.ID == "" {
		return "", errors.New("webhook: ByID: the event has no id")
	}
	return idKey(source, e.ID), nil
}

// ByChange makes events of the same source, type, object and version one event, for providers that report one change
// under several ids. An event without an object or version is an error: without a version, a second change of the object
// would be taken for the first one, and be lost.
func ByChange(source string, e Event) (string, error) {
	if e.Object == "" || e.Version == 0 {
		return "", errors.New("webhook: ByChange: the event has no object or no version")
	}
	return idempotent.HashKey("change", source, e.Type, e.Object, strconv.FormatInt(e.Version, 10)), nil
}

// ByObject makes events of the same source, type and object one event: hash(source:type:object). Use it only if each
// type happens to an object once ("charge.captured"): a second one is a duplicate, and has no effect.
func ByObject(source string, e Event) (string, error) {
	if e.Object == "" || e.Type == "" {
		return "", errors.New("webhook: ByObject: the event has no object or no type")
	}
	return idempotent.HashKey("object", source, e.Type, e.Object), nil
}

// idKey is the key of ByID.
func idKey(source, id string) string { return idempotent.HashKey("id", source, id) }

// unsignedKey is the key under which an unsigned event is stored. It covers the body, so that a forged event with a
// genuine id does not make the genuine one a duplicate.
func unsignedKey(key string, body []byte) string {
	sum := sha256.Sum256(body)
	return idempotent.HashKey("unsigned", key, hex.EncodeToString(sum[:]))
}
