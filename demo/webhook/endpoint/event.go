package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/idempotent-go/idempotent"
)

// A Payload is what this program reads of an event's body. A provider sends far more.
type Payload struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data struct {
		Object Object `json:"object"`
	} `json:"data"`
}

// An Object is what the event is about.
type Object struct {
	ID      string `json:"id"`
	Amount  int64  `json:"amount"`
	Version int64  `json:"version,omitempty"`
}

// A Provider is somebody whose events are taken.
type Provider struct {
	Name   string // also the last part of the URL
	Secret string
	Key    KeyFunc
}

// A KeyFunc says which events are the same: those with the same key have one effect.
type KeyFunc func(provider string, p Payload) (string, error)

// ByEventID is for providers that send an event again under the id it had, as Stripe does.
func ByEventID(provider string, p Payload) (string, error) {
	return idempotent.HashKey(provider, p.ID), nil
}

// ByChange is for providers that send one change under several ids. Without a version, the second
// change of an object would be taken for the first one once more, and be lost.
func ByChange(provider string, p Payload) (string, error) {
	o := p.Data.Object
	if o.ID == "" || o.Version == 0 {
		return "", errors.New("it names no object, or no version of it")
	}
	return idempotent.HashKey(provider, p.Type, o.ID, strconv.FormatInt(o.Version, 10)), nil
}

// parse reads a body whose signature was checked.
func (p *Provider) parse(body []byte) (payload Payload, key string, err error) {
	if err := json.Unmarshal(body, &payload); err != nil {
		return payload, "", fmt.Errorf("not an event: %w", err)
	}
	if payload.ID == "" || payload.Type == "" {
		return payload, "", errors.New("not an event: it has no id or no type")
	}
	key, err = p.Key(p.Name, payload)
	if err != nil {
		return payload, "", fmt.Errorf("event %q: %w", payload.ID, err)
	}
	return payload, key, nil
}
