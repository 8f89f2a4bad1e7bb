package idemhttp

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/idempotent-go/idempotent"
)

// The answers of the middleware itself. None of their texts holds anything of a request or a
// response but the status, and what WithKeyFormat says.

const useSameKey = "Send the same request again later, with the same Idempotency-Key."

// retrySoon is the Retry-After when nothing better is known.
const retrySoon = time.Second

func keyMissing() *Problem {
	return &Problem{Type: TypeKeyMissing, Title: "Idempotency-Key is missing", Status: http.StatusBadRequest,
		Detail: "This operation needs an Idempotency-Key: a value that is unique to this request, such as a UUID, and the same when the request is sent again."}
}

func keyInvalid(err error) *Problem {
	return &Problem{Type: TypeKeyInvalid, Title: "Idempotency-Key is not valid", Status: http.StatusBadRequest,
		Detail: "The Idempotency-Key cannot be used: " + err.Error() + "."}
}

// badBody says why the body of a request could not be had.
func badBody(err error) *Problem {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Problem{Type: TypeRequestTooLarge, Title: "The request body is too large", Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("With an Idempotency-Key, a request body may have %d bytes. The request was not carried out.", tooLarge.Limit)}
	}
	if errors.Is(err, errConsumed) {
		return misconfigured()
	}
	status := http.StatusBadRequest
	if errors.Is(err, os.ErrDeadlineExceeded) {
		status = http.StatusRequestTimeout
	}
	return &Problem{Type: TypeBodyUnreadable, Title: "The request body could not be read", Status: status,
		Detail: "The request body ended too early, came too slowly or was not well-formed. The request was not carried out."}
}

func misconfigured() *Problem {
	return &Problem{Type: TypeMisconfigured, Title: "The request cannot be told from others", Status: http.StatusInternalServerError,
		Detail: "The server could not find out whose request this is, or what it asks for. It was not carried out."}
}

func inProgress(retryAfter time.Duration) *Problem {
	return &Problem{Type: TypeInProgress, Title: "A request is outstanding for this Idempotency-Key", Status: http.StatusConflict,
		Detail: "A request with the same Idempotency-Key is still being processed. " + useSameKey, RetryAfter: retryAfter}
}

func notHTTP() *Problem {
	return &Problem{Type: TypeNotHTTP, Title: "The content type is not supported", Status: http.StatusUnsupportedMediaType,
		Detail: "A gRPC call cannot have an Idempotency-Key here, since its failures are not HTTP statuses. The request was not carried out."}
}

func notKept(status int) *Problem {
	return &Problem{Type: TypeResponseTooLarge, Title: "The response was not kept", Status: http.StatusInternalServerError,
		Detail: fmt.Sprintf("The request was carried out when it was first sent, and answered with status %d. That response was too large to keep, or must not be kept. The request is not carried out again.", status)}
}

// problemOf says what an error of the executor means to the client.
func problemOf(err error) *Problem {
	switch {
	case errors.Is(err, idempotent.ErrLeaseLost):
		return &Problem{Type: TypeSuperseded, Title: "Another execution took over", Status: http.StatusConflict,
			Detail: "The server was interrupted while it carried the request out, and its answer does not count. " + useSameKey, RetryAfter: retrySoon}
	case errors.Is(err, idempotent.ErrKeyReused):
		return &Problem{Type: TypeKeyReused, Title: "Idempotency-Key is already used", Status: http.StatusUnprocessableEntity,
			Detail: "This Idempotency-Key was used with another request. A key must not be used again with another method, URL, content type or body. The request was not carried out."}
	case errors.Is(err, idempotent.ErrInterrupted):
		return &Problem{Type: TypeInterrupted, Title: "The first request was interrupted", Status: http.StatusInternalServerError,
			Detail: "The server was interrupted when it first carried the request out. Whether it had an effect is not known, so it is not carried out again until somebody has looked into it."}
	case errors.Is(err, idempotent.ErrUnavailable), errors.Is(err, idempotent.ErrClosed):
		return &Problem{Type: TypeUnavailable, Title: "Requests with an Idempotency-Key cannot be served at the moment", Status: http.StatusServiceUnavailable,
			Detail: "The request was not carried out now. " + useSameKey, RetryAfter: retrySoon}
	}
	if _, ok := errors.AsType[*idempotent.PanicError](err); ok {
		return &Problem{Type: TypePanicked, Title: "The first request failed", Status: http.StatusInternalServerError,
			Detail: "The server failed when it first carried the request out. Whether it had an effect is not known; it is not carried out again."}
	}
	return &Problem{Type: TypeRecordUnreadable, Title: "The recorded response cannot be read", Status: http.StatusInternalServerError,
		Detail: "The request was sent before with this Idempotency-Key, and what is recorded of it cannot be read. It is not carried out again."}
}
