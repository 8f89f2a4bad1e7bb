package webhook

import "errors"

// ErrRefused is matched by each error that says a request is not authentic or not readable. The response to the sender
// must say no more than that.
var ErrRefused = errors.New("webhook: request refused")

// A Reason says why a request was refused. The list is closed, so that a reason can be a metric's label.
type Reason string

// Reasons of a refusal.
const (
	// ReasonNoSignature: the header or field of the signature or of its timestamp is missing or empty.
	ReasonNoSignature Reason = "no_signature"
	// ReasonMalformed: the signature or its timestamp has another form than the provider documents.
	ReasonMalformed Reason = "malformed_signature"
	// ReasonMismatch: no secret verifies the signature: a wrong secret, a changed body or a forgery.
	ReasonMismatch Reason = "signature_mismatch"
	// ReasonTooOld: the signature is right, but older than the tolerance: a replay, a late delivery or a wrong clock.
	ReasonTooOld Reason = "too_old"
	// ReasonTooNew: the signature is right, but of a time further ahead than the tolerance: one of the clocks is wrong.
	ReasonTooNew Reason = "too_new"
	// ReasonBadBody: the signature is right, or the provider signs nothing, but the body is not what it documents.
	ReasonBadBody Reason = "bad_body"
	// ReasonNoEventID: the request is authentic, but nothing in it identifies the event.
	ReasonNoEventID Reason = "no_event_id"
	// ReasonNotConfirmed: the provider, asked by a Confirm, does not know the event or knows it otherwise.
	ReasonNotConfirmed Reason = "not_confirmed"
	// ReasonOther: a custom scheme refused the request without a reason of this list.
	ReasonOther Reason = "other"
)

// Reasons returns each Reason once.
func Reasons() []Reason {
	return []Reason{ReasonNoSignature, ReasonMalformed, ReasonMismatch, ReasonTooOld, ReasonTooNew, ReasonBadBody,
		ReasonNoEventID, ReasonNotConfirmed, ReasonOther}
}

// A RefusedError is the refusal of a request. It matches ErrRefused.
type RefusedError struct {
	Reason Reason
	// Detail names what is missing or wrong, "header Stripe-Signature". It never holds a value of the request.
	Detail string
}

// Error returns the reason and the detail.
func (e *RefusedError) Error() string {
	text := ErrRefused.Error() + ": " + string(e.Reason)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// Is reports whether target is ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Refuse returns a *RefusedError, for custom schemes and Confirms. A reason outside of the list becomes ReasonOther. The
// detail must not hold a value of the request: it is logged.
func Refuse(reason Reason, detail string) error {
	return &RefusedError{Reason: knownReason(reason), Detail: detail}
}

// ReasonOf returns the reason of a refusal: ReasonOther if err is no *RefusedError or its reason is not in the list, and
// "" if err is nil.
func ReasonOf(err error) Reason {
	if err == nil {
		return ""
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return knownReason(refused.Reason)
	}
	return ReasonOther
}

func knownReason(reason Reason) Reason {
	for _, r := range Reasons() {
		if r == reason {
			return r
		}
	}
	return ReasonOther
}
