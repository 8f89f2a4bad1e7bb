package main

import (
	"errors"
	"net/http"

	"github.com/idempotent-go/idempotent"
	"github.com/stripe/stripe-go/v85"
)

// notBegun says which errors are ignored: Stripe has refused, and the money is not taken. The table
// has all that a request for money may end with.
//
//	answer                 what it is  why
//	card error (402)       recorded    The bank has decided. Stripe replays it for this key, too.
//	rate limit (429)       ignored     Stripe has not even looked at the request.
//	lock timeout (429),    ignored     Somebody else, a dead process's request perhaps, is at the
//	key in use (409)                   same object or key right now.
//	bad request (400,      ignored     Our own mistake. Stripe has not begun, as a rule, so the same
//	404), key, rights                  key works once the mistake is mended. A record would keep the
//	(401, 403)                         order unpaid until somebody calls Forget.
//	no connection,         unknown     The money may be gone or not. So the payment is not over.
//	cut off, timeout,
//	not JSON
//	Stripe's trouble       unknown     The same. Stripe repeats such an answer for the same key, and
//	(5xx)                              puts things right later on: its webhook tells.
//	a panic of ours        recorded    It may come after the charge, and again: somebody must look.
//
// An ignored error at attempt 1 frees the key as if nothing had been. After an unknown outcome the
// number of the attempt is kept, so that the next execution looks first. An ignored error keeps it
// from attempt 2 on, too.
func notBegun(err error) bool {
	e, ok := errors.AsType[*stripe.Error](err)
	return idempotent.IsRetryable(err) || ok && e.Type != stripe.ErrorTypeCard
}

// explain turns what a request for money ended with into what callers get. With repeated, it was
// sent more than once, and err is the answer to the last one: a refusal says nothing of those
// before, which may have been carried out and cut off.
func explain(err error, repeated bool) error {
	e, answered := errors.AsType[*stripe.Error](err)
	switch {
	case answered && e.Type == stripe.ErrorTypeCard:
		return portable(e) // for the key: whichever of the requests it was
	case !answered, e.HTTPStatusCode >= http.StatusInternalServerError, repeated:
		return idempotent.OutcomeUnknown(presentable(err))
	}
	return presentable(err)
}

// presentable turns an error of stripe-go into what callers get, the one that ran fn as well as
// those it is shared with. Errors that pass by themselves are marked as retryable, which is seen in
// other processes too.
func presentable(err error) error {
	e, ok := errors.AsType[*stripe.Error](err)
	switch {
	case !ok:
		return idempotent.Retryable(err) // no answer, or none that can be read
	case passes(e):
		return idempotent.Retryable(portable(e))
	}
	return portable(e)
}

func passes(e *stripe.Error) bool {
	switch e.HTTPStatusCode {
	case http.StatusConflict, http.StatusTooManyRequests:
		return true
	}
	return e.HTTPStatusCode >= http.StatusInternalServerError
}

// portable copies what may be stored and is the same for everybody.
//
// A *stripe.Error holds, and prints, the whole PaymentIntent: its client secret, with which a
// browser can pay, and the customer's name and address. Neither belongs into Redis or a log.
// LastResponse and Err are not stored, so nobody gets them: match *stripe.Error and its Type, not
// *stripe.CardError.
func portable(e *stripe.Error) *stripe.Error {
	p := &stripe.Error{
		ChargeID:          e.ChargeID,
		Code:              e.Code,
		DeclineCode:       e.DeclineCode,
		DocURL:            e.DocURL,
		HTTPStatusCode:    e.HTTPStatusCode,
		Msg:               e.Msg,
		Param:             e.Param,
		PaymentMethodType: e.PaymentMethodType,
		RequestID:         e.RequestID,
		RequestLogURL:     e.RequestLogURL,
		Type:              e.Type,
	}
	if e.PaymentIntent != nil {
		p.PaymentIntent = &stripe.PaymentIntent{ID: e.PaymentIntent.ID, Status: e.PaymentIntent.Status}
	}
	return p
}
