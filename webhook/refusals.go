package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"sync"
	"time"
)

// maxRefusals is how many refused requests are kept for Refusals.
const maxRefusals = 100

// A Refusal is a request that was refused. Its body is not kept.
type Refusal struct {
	At     time.Time   `json:"at"`
	Source string      `json:"source"`
	Peer   string      `json:"peer"`
	Reason Reason      `json:"reason"`
	Detail string      `json:"detail"`
	Size   int         `json:"size"`
	Header http.Header `json:"header"`
}

// refusals is a ring of the last refusals, and their numbers by source and reason.
type refusals struct {
	mu    sync.Mutex
	last  []Refusal
	next  int
	count map[string]map[Reason]int64
}

func (r *refusals) add(x Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.last) < maxRefusals {
		r.last = append(r.last, x)
	} else {
		r.last[r.next] = x
		r.next = (r.next + 1) % maxRefusals
	}
	if r.count == nil {
		r.count = map[string]map[Reason]int64{}
	}
	if r.count[x.Source] == nil {
		r.count[x.Source] = map[Reason]int64{}
	}
	r.count[x.Source][x.Reason]++
}

// Refusals returns the last requests that this process refused, at most 100, the last one first, and how many it refused
// since it started, by source and reason. A wrong secret shows as many refusals as ReasonMismatch.
func (in *Inbox) Refusals() (last []Refusal, count map[string]map[Reason]int64) {
	r := &in.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.last {
		last = append(last, r.last[(r.next+len(r.last)-1-i)%len(r.last)])
	}
	count = map[string]map[Reason]int64{}
	for source, reasons := range r.count {
		count[source] = map[Reason]int64{}
		maps.Copy(count[source], reasons)
	}
	return last, count
}

// secretHeaders hold credentials of the sender. Their values are stored as a part of their hash, by which two requests
// can be compared.
var secretHeaders = []string{"Authorization", "Cookie", "Proxy-Authorization"}

// storedHeader returns a copy of a header as it is stored.
func storedHeader(h http.Header) http.Header {
	stored := h.Clone()
	for _, name := range secretHeaders {
		for i, v := range stored[name] {
			sum := sha256.Sum256([]byte(v))
			stored[name][i] = "sha256:" + hex.EncodeToString(sum[:6])
		}
	}
	return stored
}
