package webhook

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// eventFields are the fields of a new event's hash, but for those that accept.lua writes.
func eventFields(a *Arrival) []any {
	fields := []any{
		"state", string(Queued), "source", a.Source, "id", a.Event.ID, "type", a.Event.Type, "object", a.Event.Object,
		"steps", 1, "s1", encodeStep(a.Step),
	}
	optional := func(name, value string, set bool) {
		if set {
			fields = append(fields, name, value)
		}
	}
	optional("version", strconv.FormatInt(a.Event.Version, 10), a.Event.Version != 0)
	optional("occurred", micros(a.Event.OccurredAt), !a.Event.OccurredAt.IsZero())
	optional("unsigned", "1", a.Event.Unsigned)
	optional("trace", a.TraceParent, a.TraceParent != "")
	return fields
}

func payloadFields(p *Payload) []any {
	fields := []any{"body", p.Body}
	if p.Sealed {
		return append(fields, "sealed", 1)
	}
	fields = append(fields, "header", encodeHeader(p.Header))
	if p.Part != nil {
		fields = append(fields, "part", p.Part)
	}
	return fields
}

// encodeHeader writes each name, its number of values and the values, with the length of each text before it. Values are
// bytes: JSON would replace those that are no UTF-8.
func encodeHeader(h http.Header) []byte {
	size := 0
	for name, values := range h {
		size += len(name) + 2*binary.MaxVarintLen16
		for _, v := range values {
			size += len(v) + binary.MaxVarintLen16
		}
	}
	data := make([]byte, 0, size)
	for name, values := range h {
		data = appendText(data, name)
		data = binary.AppendUvarint(data, uint64(len(values)))
		for _, v := range values {
			data = appendText(data, v)
		}
	}
	return data
}

func appendText(data []byte, text string) []byte {
	return append(binary.AppendUvarint(data, uint64(len(text))), text...)
}

var errHeader = errors.New("webhook: the stored header cannot be read")

func decodeHeader(data []byte) (http.Header, error) {
	h := http.Header{}
	for len(data) > 0 {
		name, rest, ok := cutText(data)
		count, n := binary.Uvarint(rest)
		if !ok || n <= 0 || count > uint64(len(rest)) {
			return nil, errHeader
		}
		data = rest[n:]
		values := make([]string, count)
		for i := range values {
			if values[i], data, ok = cutText(data); !ok {
				return nil, errHeader
			}
		}
		h[name] = values
	}
	return h, nil
}

// cutText reads what appendText wrote.
func cutText(data []byte) (text string, rest []byte, ok bool) {
	part, rest, ok := cutBytes(data)
	return string(part), rest, ok
}

func cutBytes(data []byte) (part, rest []byte, ok bool) {
	size, n := binary.Uvarint(data)
	if n <= 0 || size > uint64(len(data)-n) { //nolint:gosec // n bytes of data were read
		return nil, nil, false
	}
	end := n + int(size) //nolint:gosec // at most len(data)
	return data[n:end], data[end:], true
}

// readPayload reads the hash of a payload; nil if it is gone. A header that cannot be read is left out.
func readPayload(fields map[string]string) *Payload {
	body, ok := fields["body"]
	if !ok {
		return nil
	}
	p := &Payload{Body: []byte(body), Sealed: fields["sealed"] != ""}
	if p.Sealed {
		return p
	}
	p.Header, _ = decodeHeader([]byte(fields["header"]))
	if part, ok := fields["part"]; ok {
		p.Part = []byte(part)
	}
	return p
}

// readRecord reads the hash of an event.
func readRecord(key string, fields map[string]string) Record {
	number := func(name string) int {
		n, _ := strconv.Atoi(fields[name])
		return n
	}
	r := Record{
		Key: key, Source: fields["source"], ID: fields["id"], Type: fields["type"], Object: fields["object"],
		OccurredAt: moment(fields["occurred"]), Unsigned: fields["unsigned"] != "",
		ReceivedAt: moment(fields["received"]), Deliveries: number("deliveries"), TraceParent: fields["trace"],
		State: State(fields["state"]), Attempts: number("attempts"), AttemptsBefore: number("before"), Redrives: number("redrives"),
		Cause: Cause(fields["cause"]), Reason: fields["reason"], WaitsFor: fields["waits"],
		Due: moment(fields["due"]), ParkedUntil: moment(fields["parked"]), SettledAt: moment(fields["settled"]),
		Applied: fields["applied"] != "", Steps: number("steps"), Erased: fields["erased"] != "",
	}
	r.Version, _ = strconv.ParseInt(fields["version"], 10, 64)
	if changed := fields["changed"]; changed != "" {
		r.Changed = json.RawMessage(changed)
	}
	if r.State.Settled() || r.State == Running {
		r.Due = time.Time{}
	}
	for i := 1; i <= min(r.Deliveries, MaxReceipts); i++ {
		if receipt, ok := decodeReceipt(fields["r"+strconv.Itoa(i)]); ok {
			r.Receipts = append(r.Receipts, receipt)
		}
	}
	for i := max(1, r.Steps-MaxSteps+1); i <= r.Steps; i++ {
		if step, ok := decodeStep(fields["s"+strconv.Itoa(i)]); ok {
			r.Trail = append(r.Trail, step)
		}
	}
	return r
}

// replyMap makes a map of the reply to HGETALL inside of a script.
func replyMap(reply any) map[string]string {
	list, _ := reply.([]any)
	fields := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		value, _ := list[i+1].(string)
		fields[name] = value
	}
	return fields
}

// micros is a time as scores and fields hold it: a double holds microseconds exactly until the year 2255.
func micros(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMicro(), 10)
}

func moment(text string) time.Time {
	us, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// A stored receipt or step is a line of fields. All but the last one are without the separator.
const fieldSeparator = "\x1f"

var unseparated = strings.NewReplacer(fieldSeparator, " ")

func encodeReceipt(r Receipt) string { return micros(r.At) + fieldSeparator + r.Peer }

func decodeReceipt(text string) (Receipt, bool) {
	at, peer, ok := strings.Cut(text, fieldSeparator)
	return Receipt{At: moment(at), Peer: peer}, ok
}

func encodeStep(s Step) string {
	attempt := ""
	if s.Attempt != 0 {
		attempt = strconv.Itoa(s.Attempt)
	}
	return strings.Join([]string{
		micros(s.At), string(s.State), unseparated.Replace(s.By), s.TraceID, attempt, s.Note,
	}, fieldSeparator)
}

func decodeStep(text string) (s Step, ok bool) {
	f := strings.SplitN(text, fieldSeparator, 6)
	if len(f) != 6 {
		return s, false
	}
	s = Step{At: moment(f[0]), State: State(f[1]), By: f[2], TraceID: f[3], Note: f[5]}
	s.Attempt, _ = strconv.Atoi(f[4])
	return s, true
}

func flag(set bool) int {
	if set {
		return 1
	}
	return 0
}
