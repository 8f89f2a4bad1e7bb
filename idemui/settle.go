package idemui

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/internal/present"
)

func (u *ui) payload(w http.ResponseWriter, r *http.Request, actor string) {
	v, err := u.one(r, view{})
	if err != nil {
		u.finish(w, r, v, err)
		return
	}
	raw, codec, err := u.inspector.Payload(r.Context(), v.One.Namespace, v.One.Key)
	u.audit(r.Context(), Event{actor, ActionPayload, v.One.Namespace, v.One.Key, *v.One, *v.One, err})
	if err != nil {
		v.Problem = present.Error(err)
		u.show(w, r, http.StatusConflict, v)
		return
	}
	v.HasPayload, v.Codec, v.Payload = true, codec, u.decoded(v.One.Namespace, raw, codec)
	u.show(w, r, http.StatusOK, v)
}

// decoded shows bytes in the most readable form that loses nothing.
func (u *ui) decoded(namespace string, raw []byte, codec string) string {
	var b bytes.Buffer
	if decode := u.decoders[namespace]; decode != nil && codec != "error" {
		text, err := decode(raw)
		if err == nil {
			return text
		}
		return "the decoder fails; the bytes are\n" + hex.Dump(raw)
	}
	switch codec {
	case "msgpack", "JSON":
		if text, ok := present.Decode(raw, codec); ok && json.Indent(&b, text, "", "  ") == nil {
			return b.String()
		}
	case "custom":
		if response, err := idemhttp.DecodeRecorded(raw); err == nil {
			return responseText(response)
		}
	}
	if utf8.Valid(raw) && codec != "custom" {
		return string(raw)
	}
	return hex.Dump(raw)
}

// responseText shows what package idemhttp recorded, as it goes over the wire.
func responseText(r idemhttp.Recorded) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP %d %s\n", r.Status, http.StatusText(r.Status))
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, value := range r.Header[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	body := string(r.Body)
	if !utf8.Valid(r.Body) {
		body = hex.Dump(r.Body)
	}
	return b.String() + "\n" + body
}

var errNotTyped = errors.New("the key was not typed as it is shown; nothing was done")

func (u *ui) forget(w http.ResponseWriter, r *http.Request, actor string) {
	u.settle(w, r, actor, ActionForget, func(e *idempotent.Entry) error {
		was, err := u.inspector.Forget(r.Context(), e.Namespace, e.Key)
		if err == nil {
			*e = was
		}
		return err
	})
}

func (u *ui) resolve(w http.ResponseWriter, r *http.Request, actor string) {
	u.settle(w, r, actor, ActionResolve, func(e *idempotent.Entry) error {
		payload, err := present.Encode(r.Form.Get("value"), r.Form.Get("codec"))
		if err != nil {
			return fmt.Errorf("%w: %w", idempotent.ErrInvalidOption, err)
		}
		was, err := u.inspector.Resolve(r.Context(), e.Namespace, e.Key, payload, r.Form.Get("codec"))
		if err == nil {
			e.Status = was
		}
		return err
	})
}

// settle does what a form asks for if the key was typed, tells the audit hook, and redirects to the key.
func (u *ui) settle(w http.ResponseWriter, r *http.Request, actor string, action Action, do func(*idempotent.Entry) error) {
	v, err := u.one(r, view{Refused: string(action), Value: r.Form.Get("value"), ResolveCodec: r.Form.Get("codec")})
	if err != nil {
		u.finish(w, r, v, err)
		return
	}
	before := *v.One
	if typed := r.Form.Get("confirm"); typed != before.Key && typed != present.Text(before.Key) {
		v.Problem = errNotTyped.Error()
		u.show(w, r, http.StatusUnprocessableEntity, v)
		return
	}
	err = do(&before)
	after, failed := u.inspector.Inspect(r.Context(), before.Namespace, before.Key)
	if u.audit != nil {
		u.audit(context.WithoutCancel(r.Context()), Event{actor, action, before.Namespace, before.Key, before, after, err})
	}
	if err != nil {
		if failed == nil {
			v.One = &after
		}
		v.Problem = present.Error(err)
		u.show(w, r, http.StatusConflict, v)
		return
	}
	w.Header().Set("Location", "key?"+query(before.Namespace, before.Key)+"&done="+string(action))
	w.WriteHeader(http.StatusSeeOther)
}
